"""task=local: the user's own csv, tsv, json lines or parquet files, checked row by row.

Classes are the distinct labels of the training file, in numeric order if all are numbers, else in alphabetical order.
With `kind` null, the task is regression if the training file has a label that is a number but not a whole number, else
classification.

Labels without surrounding blanks are compared as text, in Unicode's form NFC, and case counts. A whole number is one
class however it is stored or written: 1, 1.0, 1e0, +1, and -0.0 is 0. Leading zeros are not a number's: 01 is not 1.
"""

import difflib
import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from loralab.errors import UserError
from loralab.tasks import local_files
from loralab.tasks.settings import TaskSettings
from loralab.tasks.splits import Kind, RawTask, Texts
from loralab.tasks.table_files import Table
from loralab.text import shown

__all__ = ["class_names", "read", "scores"]

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,6})?", re.ASCII)
_LEADING_ZERO = re.compile(r"[+-]?0\d")
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+", re.ASCII)
_NO_NUMBER = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)
_INVISIBLE = "\ufeff\u200b\u2060"  # byte-order mark, zero-width space, word joiner: from copied text and joined files
_EXACT = 2.0**53  # floats above it are not exact whole numbers
_LARGEST = float(np.finfo(np.float32).max)  # scores are float32
_MOST_CLASSES = 1_000  # with more distinct labels the column is probably a mistake


def read(settings: TaskSettings) -> RawTask:
    """The task in the user's files; a split without a file is its share of the training file, cut by `split_seed`.

    Rows with the same texts stay in one split. Raises UserError, with file and line, for any invalid row.
    """
    text, label = local_files.columns(settings)
    tables = local_files.tables(settings)
    labels = {part: _Labels.of(table, label) for part, table in tables.items()}
    kind = labels["train"].kind() if settings.kind is None else settings.kind
    if settings.kind is None:
        labels["train"].refuse_half_numbers()
    classes = labels["train"].classes() if kind == "classification" else None
    splits = {
        part: Texts(
            texts=list(zip(*(local_files.texts(table, column) for column in text), strict=True)),
            labels=labels[part].scores() if classes is None else labels[part].ids(classes, tables["train"].path),
            rows=np.arange(len(table), dtype=np.int64),
        )
        for part, table in tables.items()
    }
    splits = local_files.with_shares(splits, splits["train"].texts, settings)
    return RawTask(settings.name, kind, classes, splits, _metrics(classes))


def class_names(table: Table, column: str) -> list[str]:
    """The label of each row as `read` compares labels; raises UserError, with file and line, for an empty one."""
    return _Labels.of(table, column).class_names()


def scores(table: Table, column: str) -> Any:
    """The label of each row as a number, float32; raises UserError, with file and line, for one that is none."""
    return _Labels.of(table, column).scores()


def _metrics(classes: tuple[str, ...] | None) -> tuple[str, ...]:
    if classes is None:
        return ("pearson", "spearman", "mse")
    return ("accuracy", "f1" if len(classes) == 2 else "macro_f1")


@dataclass(frozen=True)
class _Labels:
    """A file's label column as text, and as numbers (None for a label that is not a number)."""

    table: Table
    column: str
    names: list[str]
    numbers: list[float | None]

    @classmethod
    def of(cls, table: Table, column: str) -> "_Labels":
        names = []
        for where, cell in zip(table.where, table.columns[column], strict=True):
            bare = cell.strip().strip(_INVISIBLE) if isinstance(cell, str) else cell
            if local_files.is_empty(bare):
                raise UserError(f"{table.path}, {where}: column '{column}' is empty; every row needs its label")
            if not isinstance(cell, str | int | float):
                held = f"{type(cell).__name__} {shown(repr(cell))}"
                raise UserError(f"{table.path}, {where}: column '{column}' holds {held}, not a label")
            name = local_files.encodable(table, column, where, str(bare).strip())
            names.append(unicodedata.normalize("NFC", name))
        return cls(table, column, names, [_number(name) for name in names])

    def kind(self) -> Kind:
        fractional = any(number is not None and not number.is_integer() for number in self.numbers)
        return "regression" if fractional else "classification"

    def refuse_half_numbers(self) -> None:
        """Raises UserError if all labels but some such as `nan`, `inf` or `3,5` are numbers."""
        texts = [(i, name) for i, name in enumerate(self.names) if self.numbers[i] is None]
        half = [(i, name) for i, name in texts if _NO_NUMBER.fullmatch(name) or _DECIMAL_COMMA.fullmatch(name)]
        if not half or len(half) < len(texts):
            return
        i, name = half[0]
        if _DECIMAL_COMMA.fullmatch(name):
            point, none = name.replace(",", "."), name.replace(",", "")
            why = f"has a comma: write {point}, or {none} if the comma separates thousands"
        elif len(half) < len(self.names):
            why = "is not a number, and other labels are; fix the row"
        else:
            return
        raise UserError(
            f"{self.table.path}, {self.table.where[i]}: label '{name}' in column '{self.column}' {why}, "
            "or set task.kind=classification if it is a class"
        )

    def classes(self) -> tuple[str, ...]:
        """The distinct labels in the order of their ids; 1 and 1.0 are one class."""
        names = sorted(set(self.class_names()))
        if None not in self.numbers:
            names.sort(key=Decimal)
        if len(names) == 1:
            raise UserError(
                f"task.label: every row of {self.table.path} has the label '{shown(names[0])}'; at least two are needed"
            )
        if len(names) > _MOST_CLASSES:
            raise UserError(
                f"task.label: column '{self.column}' of {self.table.path} has {len(names)} distinct labels, over "
                f"{_MOST_CLASSES}; name the label's column, or set task.kind=regression if it is a number"
            )
        _refuse_two_spellings(self.table.path, self.column, names)
        return tuple(names)

    def ids(self, classes: tuple[str, ...], known_from: Path) -> Any:
        """Class ids, int64; a label that is not in the training file raises UserError."""
        id_of = {name: i for i, name in enumerate(classes)}
        names = self.class_names()
        for where, name in zip(self.table.where, names, strict=True):
            if name not in id_of:
                known = shown(", ".join(classes[:10])) + (f", ... ({len(classes)} in all)" if len(classes) > 10 else "")
                near = difflib.get_close_matches(name, classes, n=1)
                hint = f"; did you mean '{shown(near[0])}'?" if near else ""
                raise UserError(
                    f"{self.table.path}, {where}: unknown label '{shown(name)}' in column '{self.column}'; "
                    f"labels of {known_from}: {known}{hint}"
                )
        return np.array([id_of[name] for name in names], dtype=np.int64)

    def scores(self) -> Any:
        """The labels as numbers, float32; one that is not a finite number raises UserError."""
        for where, name, number in zip(self.table.where, self.names, self.numbers, strict=True):
            if number is None:
                comma = _DECIMAL_COMMA.fullmatch(name) is not None
                fix = f"write {name.replace(',', '.')}" if comma else "fix the row"
                raise UserError(
                    f"{self.table.path}, {where}: label '{shown(name)}' in column '{self.column}' is not a finite "
                    f"number, and the task is regression; {fix}, or set task.kind=classification"
                )
        return np.array(self.numbers, dtype=np.float32)

    def class_names(self) -> list[str]:
        """The labels as text, and whole numbers in their shortest form; UserError for floats that are not exact."""
        cells = self.table.columns[self.column]
        for where, cell in zip(self.table.where, cells, strict=True):
            if isinstance(cell, float) and _EXACT <= abs(cell) < math.inf:
                raise UserError(
                    f"{self.table.path}, {where}: label {cell!r} in column '{self.column}' is a float beyond 2^53, "
                    "where neighbouring whole numbers are one; store the labels as whole numbers or as text"
                )
        return [_class_name(name) for name in self.names]


def _class_name(name: str) -> str:
    """1 for 1.0, 1e0 and +1, 0 for -0.0; any other text unchanged, but 007.0 is 007."""
    if not _NUMBER.fullmatch(name) or _number(name) is None:
        return name
    if _LEADING_ZERO.match(name):
        return re.sub(r"\.0*$", "", name)
    number = Decimal(name)
    return str(int(number)) if number == number.to_integral_value() else name


def _refuse_two_spellings(path: Path, column: str, names: Sequence[str]) -> None:
    """Raises UserError for two classes that are one fractional number, such as 0.5 and .50."""
    known: dict[Decimal, str] = {}
    for name in names:
        if _number(name) is not None and not _LEADING_ZERO.match(name):
            other = known.setdefault(Decimal(name), name)
            if other != name:
                raise UserError(
                    f"task.label: column '{column}' of {path} has the labels '{other}' and '{name}', which are one "
                    "number; write it in one way"
                )


def _number(name: str) -> float | None:
    if not _NUMBER.fullmatch(name):
        return None
    number = float(name)
    return number if abs(number) <= _LARGEST else None
