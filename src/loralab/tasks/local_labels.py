"""task=local: the user's own csv, tsv, json lines or parquet files, checked row by row.

Classes are the distinct labels of the training file, in numeric order if all are numbers, else in alphabetical order.
With `kind` null, the task is regression if the training file has a label that is a number but not a whole number, else
classification.
"""

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loralab.errors import UserError
from loralab.tasks import local_files
from loralab.tasks.settings import TaskSettings
from loralab.tasks.splits import Kind, RawTask, Texts
from loralab.tasks.table_files import Table

__all__ = ["read"]

_WHOLE_FLOAT = re.compile(r"^(-?\d+)\.0*$")
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
            if local_files.is_empty(cell):
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
                f"task.label: every row of {self.table.path} has the label '{names[0]}'; at least two are needed"
            )
        if len(names) > _MOST_CLASSES:
            raise UserError(
                f"task.label: column '{self.column}' of {self.table.path} has {len(names)} distinct labels, over "
                f"{_MOST_CLASSES}; name the label's column, or set task.kind=regression if it is a number"
            )
        return tuple(names)

    def ids(self, classes: tuple[str, ...], known_from: Path) -> Any:
        """Class ids, int64; a label that is not in the training file raises UserError."""
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
                    f"the task is regression; fix the row, or set task.kind=classification"
                )
        return np.array(self.numbers, dtype=np.float32)

    def _class_names(self) -> list[str]:
        """The labels as text, with 1.0 as 1, since whole numbers are often stored as floats."""
        return [_WHOLE_FLOAT.sub(r"\1", name) for name in self.names]


def _number(name: str) -> float | None:
    try:
        number = float(name)
    except ValueError:
        return None
    return number if abs(number) <= _LARGEST else None  # False for NaN too
