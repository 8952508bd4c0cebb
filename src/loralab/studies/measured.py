"""A study that is measured, not trained: the table of its program, and whether a CSV of it is whole.

sweeps/<study>.yaml names the program (`program: analysis/<study>.py` at hydra.sweeper.study), which has, beside what
every analysis has to draw and to tell: KEYS, the columns that tell rows apart; KEPT, all columns, commit and diff last;
`wanted(smoke)`, the KEYS of every row that the CSV must hold; `measure(smoke)`, the rows without commit and diff.
"""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from loralab.errors import UserError
from loralab.store.provenance import code_version

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SIZES", "measured", "refuse_holes", "refuse_settings"]

SIZES = ("smoke=true", "smoke=false")
VERSION = ("commit", "diff")


def refuse_settings(name: str, overrides: Sequence[str]) -> None:
    """Raises UserError for any setting but the size: there is no run that could take it."""
    for override in overrides:
        if override not in SIZES:
            raise UserError(f"{override}: {name} is measured, not trained, so it takes no setting but smoke=true")


def measured(program: ModuleType, *, smoke: bool, store: Path) -> "pd.DataFrame":
    """What the program measures, with the version of the code in each row (its diff is kept in the store)."""
    frame: pd.DataFrame = program.measure(smoke).assign(**code_version(store))
    assert list(frame) == list(program.KEPT) and tuple(frame)[-2:] == VERSION, "columns other than its KEPT"
    return frame


def refuse_holes(name: str, program: ModuleType, frame: "pd.DataFrame", *, smoke: bool, path: Path) -> None:
    """Raises UserError where a CSV lacks a column or a row that is wanted, or has a row twice, or another one."""
    again = f"`loralab study {name}{' smoke=true' if smoke else ''}` measures again"
    for column in program.KEPT:
        if column not in frame:
            raise UserError(f"{path} has no column {column!r}; {again}")
    keys = list(program.KEYS)
    there, wanted = _cells(frame[keys]), _cells(program.wanted(smoke)[keys])
    assert len(set(wanted)) == len(wanted), "KEYS do not tell the wanted rows apart"
    rows = set(there)
    absent = [cell for cell in wanted if cell not in rows]
    if absent:
        raise UserError(
            f"{path}: no row for {_told(keys, absent[0])} ({len(absent)} of {len(wanted)} are missing); {again}"
        )
    others = rows - set(wanted)
    if others:
        first = next(cell for cell in there if cell in others)
        raise UserError(f"{path}: {len(others)} rows that are not wanted, the first {_told(keys, first)}; {again}")
    if len(there) > len(rows):
        first = next(cell for cell in there if there.count(cell) > 1)
        raise UserError(f"{path}: more than one row for {_told(keys, first)}; {again}")


def _cells(frame: "pd.DataFrame") -> list[tuple[str, ...]]:
    return [tuple(_text(value) for value in row) for row in frame.itertuples(index=False, name=None)]


def _text(value: Any) -> str:
    """A value as it is in the CSV whatever type it is read back with; "" for what a row does not have."""
    if value is None or value != value:
        return ""
    if isinstance(value, (str, bool)):
        return str(value)
    return f"{float(value):.10g}"


def _told(keys: Sequence[str], cell: Sequence[str]) -> str:
    return " ".join(f"{key}={text}" for key, text in zip(keys, cell, strict=True) if text)
