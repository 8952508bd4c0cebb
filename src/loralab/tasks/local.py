"""task=local: the user's own csv, tsv, json lines or parquet files, checked row by row.

Classes are the distinct labels of the training file, numbers in numeric order, other labels in alphabetical order. With
`kind` null, the task is regression if the training file has a label that is a number but not a whole one, else
classification.
"""

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loralab.errors import UserError
from loralab.files import fingerprint
from loralab.tasks.raw import Kind, RawTask, Texts, hold_out
from loralab.tasks.tables import Table, existing, read_table

__all__ = ["identity", "read"]

_WHOLE_FLOAT = re.compile(r"^(-?\d+)\.0*$")
_LARGEST = float(np.finfo(np.float32).max)  # scores are float32
_PARTS = ("train", "validation", "test")
_MOST_CLASSES = 1_000  # more distinct labels than this are a mistaken column, not classes


def identity(files: Mapping[str, str | None], *, cache: Path | None) -> dict[str, str]:
    """The fingerprint of each file given."""
    return {part: fingerprint([path], cache=cache) for part, path in _paths(files).items()}


def read(
    *,
    files: Mapping[str, str | None],
    text: Sequence[str] | None,
    label: str | None,
    kind: Kind | None,
    validation_share: float | None,
    test_share: float | None,
    split_seed: int | None,
) -> RawTask:
    """The task in the user's files; a split without a file is its share of the training file, cut by `split_seed`.

    Rows with the same texts stay in one split. Raises UserError for anything wrong, with file and line.
    """
    columns = _columns(text, label)
    assert text is not None and label is not None
    tables = {part: read_table(path, columns) for part, path in _paths(files).items()}
    labels = {part: _Labels.of(table, label) for part, table in tables.items()}
    settled = labels["train"].kind() if kind is None else kind
    classes = labels["train"].classes() if settled == "classification" else None
    splits = {
        part: Texts(
            texts=_texts(table, text),
            labels=labels[part].scores() if classes is None else labels[part].ids(classes, tables["train"].path),
            rows=np.arange(len(table), dtype=np.int64),
        )
        for part, table in tables.items()
    }
    shares = {"validation": validation_share, "test": test_share}
    splits = _split(splits, {part: share for part, share in shares.items() if part not in splits}, split_seed)
    return RawTask("local", settled, classes, {part: splits[part] for part in _PARTS}, _metrics(classes))


def _metrics(classes: tuple[str, ...] | None) -> tuple[str, ...]:
    if classes is None:
        return ("pearson", "spearman", "mse")
    return ("accuracy", "f1" if len(classes) == 2 else "macro_f1")


def _paths(files: Mapping[str, str | None]) -> dict[str, Path]:
    if files["train"] is None:
        raise UserError("task.files.train: task=local needs a training file, e.g. task.files.train=reviews.csv")
    given = [(part, files[part]) for part in _PARTS]
    return {part: existing(f"task.files.{part}", path) for part, path in given if path is not None}


def _columns(text: Sequence[str] | None, label: str | None) -> dict[str, str]:
    if text is None or len(text) not in (1, 2) or len(set(text)) != len(text):
        got = "null" if text is None else f"[{', '.join(text)}]"
        raise UserError(f"task.text: got {got}; allowed: one or two text columns, e.g. task.text=[sentence]")
    if label is None or label in text:
        raise UserError(
            f"task.label: got {'null' if label is None else label}; allowed: a column that is not in task.text"
        )
    return dict.fromkeys(text, "task.text") | {label: "task.label"}


def _texts(table: Table, columns: Sequence[str]) -> list[tuple[str, ...]]:
    for column in columns:
        for where, cell in zip(table.where, table.columns[column], strict=True):
            if (
                cell is None
                or (isinstance(cell, float) and math.isnan(cell))
                or (isinstance(cell, str) and not cell.strip())
            ):
                raise UserError(f"{table.path}, {where}: column '{column}' is empty; every row needs its text")
            if not isinstance(cell, str):
                raise UserError(
                    f"{table.path}, {where}: column '{column}' holds {type(cell).__name__} {cell!r}, not text"
                )
            if not _is_unicode(cell):
                raise UserError(
                    f"{table.path}, {where}: column '{column}' holds half a surrogate pair, which is no text"
                )
    return list(zip(*(table.columns[column] for column in columns), strict=True))


def _split(splits: dict[str, Texts], shares: dict[str, float | None], seed: int | None) -> dict[str, Texts]:
    """`splits` with each part of `shares` cut from the training rows."""
    if not shares:
        return splits
    for part, share in shares.items():
        if share is None or not 0 < share < 1:
            raise UserError(f"task.{part}_share: got {share}; without task.files.{part} it must be above 0 and below 1")
    if seed is None:
        raise UserError("task.split_seed: got null; without all three files it must be a whole number")
    train = splits["train"]
    sizes = [round(share * len(train)) for share in shares.values() if share is not None]
    *parts, rest = hold_out(train.texts, sizes, seed)
    for part, rows in zip((*shares, "train"), (*parts, rest), strict=True):
        if not len(rows):
            raise UserError(
                f"task.files.train: its {len(train)} rows ({len(set(train.texts))} distinct texts) leave none for "
                f"{part} at {', '.join(f'task.{name}_share={share}' for name, share in shares.items())}; "
                f"give more rows, or files"
            )
    cut = {part: train.take(rows) for part, rows in zip(shares, parts, strict=True)}
    return {**splits, **cut, "train": train.take(rest)}


@dataclass(frozen=True)
class _Labels:
    """A file's label column as text, and as numbers where a label is one."""

    table: Table
    column: str
    names: list[str]
    numbers: list[float | None]

    @classmethod
    def of(cls, table: Table, column: str) -> "_Labels":
        names = []
        for where, cell in zip(table.where, table.columns[column], strict=True):
            if (
                cell is None
                or (isinstance(cell, float) and math.isnan(cell))
                or (isinstance(cell, str) and not cell.strip())
            ):
                raise UserError(f"{table.path}, {where}: column '{column}' is empty; every row needs its label")
            if not isinstance(cell, str | int | float):
                raise UserError(
                    f"{table.path}, {where}: column '{column}' holds {type(cell).__name__} {cell!r}, not a label"
                )
            names.append(str(cell).strip())
        return cls(table, column, names, [_number(name) for name in names])

    def kind(self) -> Kind:
        fractional = any(number is not None and not number.is_integer() for number in self.numbers)
        return "regression" if fractional else "classification"

    def classes(self) -> tuple[str, ...]:
        """The distinct labels in the order of their ids; 1 and 1.0 are one class."""
        names = sorted(set(self._class_names()))
        if None not in self.numbers:
            names.sort(key=float)
        if len(names) == 1:
            raise UserError(
                f"task.label: every row of {self.table.path} has the label '{names[0]}'; two classes are the least"
            )
        if len(names) > _MOST_CLASSES:
            raise UserError(
                f"task.label: column '{self.column}' of {self.table.path} has {len(names)} distinct labels, over "
                f"{_MOST_CLASSES}; name the label's column, or set task.kind=regression if it is a number"
            )
        return tuple(names)

    def ids(self, classes: tuple[str, ...], known_from: Path) -> Any:
        """Class ids, int64; a label that the training file does not have raises UserError."""
        id_of = {name: i for i, name in enumerate(classes)}
        names = self._class_names()
        for where, name in zip(self.table.where, names, strict=True):
            if name not in id_of:
                shown = ", ".join(classes[:10]) + (f", ... ({len(classes)} in all)" if len(classes) > 10 else "")
                near = difflib.get_close_matches(name, classes, n=1)
                hint = f"; did you mean '{near[0]}'?" if near else ""
                raise UserError(
                    f"{self.table.path}, {where}: unknown label '{name}' in column '{self.column}'; "
                    f"labels of {known_from}: {shown}{hint}"
                )
        return np.array([id_of[name] for name in names], dtype=np.int64)

    def scores(self) -> Any:
        """The labels as numbers, float32; one that is not a finite number raises UserError."""
        for where, name, number in zip(self.table.where, self.names, self.numbers, strict=True):
            if number is None:
                raise UserError(
                    f"{self.table.path}, {where}: label '{name}' in column '{self.column}' is not a finite number, and "
                    f"the task is regression; mend the row, or set task.kind=classification"
                )
        return np.array(self.numbers, dtype=np.float32)

    def _class_names(self) -> list[str]:
        """The labels as text, 1.0 as 1: a column of whole numbers is often stored as floats."""
        return [_WHOLE_FLOAT.sub(r"\1", name) for name in self.names]


def _is_unicode(cell: str) -> bool:
    try:
        cell.encode()
    except UnicodeEncodeError:
        return False
    return True


def _number(name: str) -> float | None:
    try:
        number = float(name)
    except ValueError:
        return None
    return number if abs(number) <= _LARGEST else None  # False for NaN too
