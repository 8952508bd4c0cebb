"""Checks that a trained study's CSV has a row for every run of its sweep."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from loralab.config.overrides import settings, to_override
from loralab.errors import UserError
from loralab.store.run_directory import FINAL
from loralab.sweeps.study import Study, Unfinished

__all__ = ["as_swept", "plain", "refuse_holes"]


def refuse_holes(study: Study, frame: pd.DataFrame, path: Path) -> None:
    """Raises UserError if a run of the study has no row, or is not done."""
    for column in ("stage", "status", "hash"):
        if column not in frame:
            raise UserError(
                f"{path} has no column {column!r}, which it needs; `loralab collect {study.name}` writes it again"
            )
    undone = frame[~frame["status"].isin(FINAL)]
    if len(undone):
        names = [name for name in frame if name in study.axes]
        row = " ".join(f"{name}={to_override(undone[name].iloc[0])}" for name in names)
        raise UserError(f"{path}: {len(undone)} rows of runs that are not done, the first {row}")
    frame = as_swept(study, frame)
    first = frame[frame["stage"] == "grid"]
    _refuse_absent(study, study.grid, first, path)
    if study.spec.confirm is not None:
        shared = [name for name in first.columns if name not in study.axes and _between(first, name)]
        try:
            wanted = study.second_jobs(first.drop_duplicates("hash").drop(columns=shared))
        except Unfinished as why:
            raise UserError(f"{path}: the runs of its second stage are unknown: {why}") from why
        _refuse_absent(study, wanted, frame[frame["stage"] == "confirm"], path)


def as_swept(study: Study, frame: pd.DataFrame) -> pd.DataFrame:
    """A CSV's frame with values as in the sweep: texts become lists and mappings, empty cells become null.

    If some runs do not have the axis at all, an empty cell stays NaN.
    """
    found, jobs = frame.copy(), [settings(job) for job in study.grid]
    for name in (name for name in study.axes if name in frame):
        values = [job[name] for job in jobs if name in job]
        known = {plain(value): value for value in values if isinstance(value, (list, Mapping))}
        null = None in values and len(values) == len(jobs)
        if known or null:
            swept = [None if null and value != value else known.get(value, value) for value in frame[name]]
            found[name] = pd.Series(swept, index=frame.index, dtype=object)
    return found


def plain(value: Any) -> Any:
    """A value as written to a CSV: a list's items or a mapping's `key:value` pairs joined by commas; else unchanged.

    Of a node of settings its name; of the task what people call it, so that a figure names the user's own data.
    """
    if isinstance(value, Mapping):
        return ",".join(f"{key}:{plain(of)}" for key, of in value.items())
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    return getattr(value, "called", getattr(value, "name", value))


def _between(frame: pd.DataFrame, name: str) -> bool:
    """Whether a column is at the position of a table's axes; an axis that all runs share does not affect selection."""
    names = list(frame)
    return names.index("stage") < names.index(name) < names.index("status")


def _refuse_absent(study: Study, jobs: Sequence[tuple[str, ...]], frame: pd.DataFrame, path: Path) -> None:
    names = [name for name in frame if name in study.axes]
    rows = set(frame[names].map(_text).itertuples(index=False, name=None))
    wanted = [settings(job) for job in jobs]
    absent = [each for each in wanted if tuple(_text(each.get(name)) for name in names) not in rows]
    if absent:
        cell = " ".join(f"{name}={to_override(absent[0][name])}" for name in names if name in absent[0])
        raise UserError(
            f"{path}: no row for {cell} ({len(absent)} of {len(wanted)} runs have none); "
            f"`loralab study {study.name}` trains what is missing and collects again"
        )


def _text(value: Any) -> str:
    """The text of an axis' value; in a CSV both null and a missing axis are an empty cell."""
    return "" if value is None or value != value else to_override(value)
