"""A study that is measured, not trained: its program's table, and the check that a CSV of it is complete."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loralab.errors import UserError
from loralab.store.provenance import code_version
from loralab.studies.study_module import Measurement

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SIZES", "measure_study", "refuse_holes", "refuse_settings"]

SIZES = ("smoke=true", "smoke=false")


def refuse_settings(name: str, overrides: Sequence[str]) -> None:
    """Raises UserError for any setting except the size, because there is no run to apply it to."""
    for override in overrides:
        if override not in SIZES:
            raise UserError(f"{override}: {name} is measured, not trained, so it takes no setting but smoke=true")


def measure_study(program: Measurement, *, smoke: bool, store: Path) -> "pd.DataFrame":
    """The rows that the program measures, with the version of the code in each (its diff is kept in the store)."""
    frame: pd.DataFrame = program.measure(smoke).assign(**code_version(store))
    if tuple(frame) != program.kept:
        raise UserError(
            f"{program.file}: measure(smoke) gives the columns {', '.join(map(str, frame))}; "
            f"KEPT has {', '.join(program.kept)}"
        )
    return frame


def refuse_holes(name: str, program: Measurement, frame: "pd.DataFrame", *, smoke: bool, path: Path) -> None:
    """Raises UserError if a CSV lacks a column or a row, or has a duplicate or unexpected row."""
    again = f"`loralab study {name}{' smoke=true' if smoke else ''}` measures again"
    for column in program.kept:
        if column not in frame:
            raise UserError(f"{path} has no column {column!r}; {again}")
    keys = list(program.keys)
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
        raise UserError(f"{path}: {len(others)} unexpected rows, the first {_told(keys, first)}; {again}")
    if len(there) > len(rows):
        first = next(cell for cell in there if there.count(cell) > 1)
        raise UserError(f"{path}: more than one row for {_told(keys, first)}; {again}")


def _cells(frame: "pd.DataFrame") -> list[tuple[str, ...]]:
    return [tuple(_text(value) for value in row) for row in frame.itertuples(index=False, name=None)]


def _text(value: Any) -> str:
    """A value's text in the CSV, independent of the type that it is read back with; "" if the row lacks it."""
    if value is None or value != value:
        return ""
    if isinstance(value, (str, bool)):
        return str(value)
    return f"{float(value):.10g}"


def _told(keys: Sequence[str], cell: Sequence[str]) -> str:
    return " ".join(f"{key}={text}" for key, text in zip(keys, cell, strict=True) if text)
