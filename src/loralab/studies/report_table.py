"""A frame as the text of a table in a report, whose cells name the runs that they are made of."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlencode

import pandas as pd

__all__ = ["ABSENT", "Table", "Trace", "table", "text", "traced", "traced_by"]

NUMBER = re.compile(r"[\[<>~+-]*\s*[\d.]*\d")  # start of the text of a number or an interval
LONGEST_FRACTION = 4  # digits; columns that need more are not aligned
ABSENT = "—"
RATE = "optim.lr"
ALIASES = {"lr_A": RATE, "λ": "lora.ratio"}
"""Names of columns in the studies' tables that are not the last part of the setting's key."""


@dataclass(frozen=True)
class Trace:
    """The runs behind a cell: how many, and the settings that select them on the page of the runs, as a URL's query."""

    runs: int
    query: str


@dataclass(frozen=True)
class Table:
    """A table of texts; numeric: for each column, whether it is right-aligned.

    rows_traces: for each row the runs that it is made of; traces: the same for single cells, by row and column.
    """

    columns: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[str, ...], ...]
    row_traces: tuple[Trace | None, ...] = ()
    traces: Mapping[tuple[int, int], Trace] = field(default_factory=dict)


def table(frame: pd.DataFrame, exact: Collection[int] = ()) -> Table:
    """A frame's columns, preceded by its index if that has a name. exact: those whose decimals are not aligned."""
    frame = _flat(frame)
    texts = [[text(value) for value in frame.iloc[:, at]] for at in range(frame.shape[1])]
    texts = [column if at in exact else _aligned(column) for at, column in enumerate(texts)]
    numeric = tuple(all(cell == ABSENT or NUMBER.match(cell) for cell in column) for column in texts)
    return Table(_names(frame), numeric, tuple(zip(*texts, strict=True)))


def traced(frame: pd.DataFrame, settings: pd.DataFrame) -> Table:
    """The frame's table with the traces of its rows, or of its cells where the columns are values of a setting.

    settings: one row for each run, with a column for each setting that varies among them. A column of the table shows a
    setting if it is named by its key or the key's last part (`ratio` for lora.ratio) and has no other values. A row has
    a trace only if its settings, without the tuned rate, are no other row's: otherwise its runs are not known.
    """
    flat, runs = _flat(frame), settings.map(text)
    cells = flat.map(text)
    keys = {at: key for at, name in enumerate(_names(flat)) if (key := _setting(name, cells.iloc[:, at], runs))}
    plain = table(frame, keys)
    rows = [{key: row.iloc[at] for at, key in keys.items()} for _, row in cells.iterrows()]
    names = [tuple(value for key, value in row.items() if key != RATE) for row in rows]
    known = [row if name and names.count(name) == 1 else None for row, name in zip(rows, names, strict=True)]
    across = _setting(str(frame.columns.name), pd.Series([text(name) for name in frame.columns]), runs)
    if across is None:
        own = tuple(None if row is None else _trace(row, runs) for row in known)
        return replace(plain, row_traces=own if any(own) else ())
    first = flat.shape[1] - frame.shape[1]
    columns = list(enumerate(map(text, frame.columns), start=first))
    cell_settings = {
        (at, to): row | {across: name} for at, row in enumerate(known) if row is not None for to, name in columns
    }
    found = {at: _trace(wanted, runs) for at, wanted in cell_settings.items()}
    return replace(plain, traces={at: trace for at, trace in found.items() if trace is not None})


def traced_by(frame: pd.DataFrame, settings: pd.DataFrame, keys: pd.DataFrame) -> Table:
    """The frame's table with the traces of its rows, by columns that the study names after no setting.

    settings: as in `traced`; keys: for each run the cells of the row that it belongs to, under the table's columns. A
    row with a rate leads to the runs at this rate. It has a trace if settings tell its runs from all others.
    """
    runs, belongs = settings.map(text), keys.map(text)
    cells, names = frame.map(text), _names(frame)
    rates = [at for at, name in enumerate(names) if _setting(name, cells.iloc[:, at], runs) == RATE]
    plain = table(frame, {*rates, *(names.index(str(name)) for name in keys)})
    own = []
    for _, row in cells.iterrows():
        inside = (belongs == row[list(map(str, belongs))].to_numpy()).all(axis=1)
        for at in rates:
            inside &= runs[RATE] == row.iloc[at]
        own.append(_selecting(inside, runs))
    return replace(plain, row_traces=tuple(own) if any(own) else ())


def _selecting(inside: "pd.Series[bool]", runs: pd.DataFrame) -> Trace | None:
    """The fewest settings that these runs share, and no other run has; None where there are none."""
    shared = {str(key): runs[key][inside].iloc[0] for key in runs if runs[key][inside].nunique() == 1}
    for key in reversed(list(shared)):  # the first keys say most, such as the task and the method
        rest = {name: value for name, value in shared.items() if name != key}
        if rest and (found := _trace(rest, runs)) is not None and found.runs == inside.sum():
            shared = rest
    trace = _trace(shared, runs) if shared else None
    return trace if trace is not None and trace.runs == inside.sum() else None


def text(value: Any) -> str:
    """A value as a cell shows it."""
    if value is None or value != value:
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _setting(name: str, cells: "pd.Series[str]", runs: pd.DataFrame) -> str | None:
    """The setting that a column of this name and with these values shows."""
    for key in map(str, runs.columns):
        if name in (key, key.rpartition(".")[2]) or ALIASES.get(name) == key:
            return key if set(cells) <= set(runs[key]) else None
    return None


def _trace(wanted: Mapping[str, str], runs: pd.DataFrame) -> Trace | None:
    inside = pd.Series(data=True, index=runs.index)
    for key, value in wanted.items():
        inside &= runs[key] == value
    return Trace(int(inside.sum()), urlencode(wanted)) if inside.any() else None


def _flat(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.reset_index() if any(frame.index.names) else frame


def _names(frame: pd.DataFrame) -> tuple[str, ...]:
    return tuple(" ".join(map(str, name)) if isinstance(name, tuple) else str(name) for name in frame.columns)


def _aligned(texts: Sequence[str]) -> list[str]:
    """Decimal fractions with the same number of digits if few are enough; else the texts unchanged."""
    plain = [re.fullmatch(r"-?\d+(?:\.(\d+))?", each) for each in texts if each != ABSENT]
    digits = max((len(match[1] or "") for match in plain if match), default=0)
    if not all(plain) or not 0 < digits <= LONGEST_FRACTION:
        return list(texts)
    return [each if each == ABSENT else f"{float(each):.{digits}f}" for each in texts]
