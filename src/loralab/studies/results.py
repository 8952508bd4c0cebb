"""A study's runs as tables, for people (`load_study`) and as the CSV that its figures are drawn from."""

import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from loralab.config.overrides import settings, to_override
from loralab.errors import UserError
from loralab.files import write_text
from loralab.store.predictions import packed_correct
from loralab.store.run_directory import FINAL
from loralab.studies import study_module
from loralab.studies.measured import measured, refuse_holes, refuse_settings
from loralab.studies.study_module import analysis, analysis_of
from loralab.studies.study_module import program as _program
from loralab.sweeps.collect import curves, table
from loralab.sweeps.study import Study, open_study

__all__ = ["Tables", "as_swept", "load", "load_study", "measure", "plain", "reduce_study", "save", "state"]

LONGEST_STEM = 200  # file systems allow 255 bytes, and a file is written under a longer name at first
TEXTS = ("hash", "commit", "diff", "correct")  # columns that are never numbers, whatever their digits


class Tables(NamedTuple):
    """runs: one row a run (sweeps.collect.table); curves: one row a logged value (sweeps.collect.curves)."""

    runs: pd.DataFrame
    curves: pd.DataFrame
    store: Path

    def correct(self, run: str) -> str:
        """Which test examples a run got right at its last step, packed (loralab.store.predictions); "" for none."""
        path = self.store / "runs" / run / "predictions.parquet"
        return packed_correct(path) if path.is_file() else ""


def load_study(name: str, *overrides: str, store: str | Path | None = None) -> Tables:
    """The runs of sweeps/<name>.yaml: those that are done, and rows for those that are not.

    overrides: as on the command line, e.g. "seed=0" or "smoke=true"; store: None for $LORALAB_STORE, else outputs.
    Raises UserError for a study that is not there.
    """
    with open_study(name, overrides, store=None if store is None else Path(store)) as study:
        return tables(study)


def tables(study: Study) -> Tables:
    """Both tables of a study that is open."""
    cells = study.cells()
    return Tables(table(study.store, cells), curves(study.store, cells), study.store)


def reduce_study(study: Study) -> pd.DataFrame:
    """What a study's figure is drawn from: `reduce` of its analysis; the runs where it has none.

    reduce finds a column for each of the analysis's AXES; one that the sweep does not vary has its value in every row.
    """
    found = tables(study)
    module = analysis(analysis_of(study))
    if module is None:
        return found.runs
    runs, cells = found.runs.copy(), study.cells()
    for key in module.AXES:
        if key not in runs:
            values = [_setting(study.planned(cell.overrides).config, key) for cell in cells]
            runs.insert(list(runs).index("status"), key, values)
        elif any(
            key not in cell.axes for cell in cells
        ):  # such as the one seed of a first stage, whose second has more
            own = [settings(cell.overrides) for cell in cells]
            runs[key] = [given.get(key, value) for given, value in zip(own, runs[key], strict=True)]
    frame: pd.DataFrame = module.reduce(found._replace(runs=runs))
    return frame


def measure(study: Study, overrides: Sequence[str], store: Path) -> pd.DataFrame:
    """What the program of a study that is not trained measures, now; UserError for a setting that it cannot take."""
    refuse_settings(study.name or "", overrides)
    return measured(_program(study), smoke=study.smoke, store=store)


def state(name: str, overrides: Sequence[str], store: Path) -> str:
    """Whether the CSV of a study that is not trained is there and whole, in one line."""
    refuse_settings(name, overrides)
    path = target(name, overrides, store)
    try:
        return f"{len(load(name, *overrides, path=path))} rows in {path}, none missing"
    except UserError as error:
        return str(error)


def _setting(config: Any, key: str) -> Any:
    """The value at a dotted key; a group's (task, model) is its name, a list's or a mapping's its text."""
    return plain(functools.reduce(getattr, key.split("."), config))


def plain(value: Any) -> Any:
    """A value as a CSV has it: of a list its items with commas, of a mapping `key:value` with commas, else itself."""
    if isinstance(value, Mapping):
        return ",".join(f"{key}:{plain(of)}" for key, of in value.items())
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    return getattr(value, "name", value)


def load(name: str, *overrides: str, path: Path | None = None) -> pd.DataFrame:
    """A study's CSV, which has a row or several for each run that its file wants, or each cell that is measured.

    Raises UserError, which names the first that it lacks.

    overrides: those that it was collected with; path: None for analysis/results/<name>.csv. Nothing but the CSV and
    the configuration is read. The frame is as the CSV has it: of an axis, a list is its text and null is NaN.
    """
    path = path or target(name, (), Path())
    with open_study(name, overrides) as study:
        if study.spec.program is not None:
            refuse_settings(name, overrides)
        try:
            frame = pd.read_csv(path, dtype=dict.fromkeys(TEXTS, str))
        except FileNotFoundError:
            raise UserError(f"{path} is not there; `loralab study {name}` makes it") from None
        if study.spec.program is not None:
            refuse_holes(name, _program(study), frame, smoke=study.smoke, path=path)
            return frame
        absent = [column for column in ("stage", "status", "hash") if column not in frame]
        if absent:
            raise UserError(f"{path} has no column {absent[0]!r}; `loralab collect {name}` makes it anew")
        for name in (name for name in study.axes if name in frame and frame[name].dtype in (object, "str")):
            frame[name] = frame[name].map(_number)
        _refuse_holes(study, frame, path)
    return frame


def _number(value: Any) -> Any:
    """Of an axis that has text beside numbers (`${optim.lr}`), pandas reads the numbers as text too."""
    try:
        return float(value)
    except ValueError:
        return value


def _refuse_holes(study: Study, frame: pd.DataFrame, path: Path) -> None:
    """Raises UserError where a run that the study wants has no row, or is not done."""
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
        wanted = study.second_jobs(first.drop_duplicates("hash").drop(columns=shared))
        _refuse_absent(study, wanted, frame[frame["stage"] == "confirm"], path)


def as_swept(study: Study, frame: pd.DataFrame) -> pd.DataFrame:
    """A frame of a CSV with the values that the sweep has: lists and mappings for their texts, null for an empty cell.

    Where some runs do not have the axis at all, an empty cell stays NaN, which says so.
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


def _between(frame: pd.DataFrame, name: str) -> bool:
    """Whether a column stands where a table has its axes; one of those that all runs share has no say in a choice."""
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
    """A value of an axis; a CSV has one empty cell for null and for no such axis."""
    return "" if value is None or value != value else to_override(value)


def save(frame: pd.DataFrame, to: Path) -> None:
    """Writes the CSV whole or not at all; numbers in ten digits, which seconds since the epoch need, lists `plain`."""
    if to.is_dir():
        raise UserError(f"--to: {to} is a directory; name a file")
    several = [name for name in frame if any(isinstance(value, (list, tuple, Mapping)) for value in frame[name])]
    frame = frame.assign(**{str(name): frame[name].map(plain) for name in several})
    write_text(to, frame.to_csv(index=False, float_format="%.10g"))


def target(name: str, overrides: Sequence[str], store: Path) -> Path:
    """analysis/results/<name>.csv for the study as its file has it; a file in the store for any other part of it."""
    if not overrides:
        return study_module.ANALYSIS / "results" / f"{name}.csv"
    stem = f"{name} {' '.join(overrides)}".replace("/", "_")
    if len(stem.encode()) > LONGEST_STEM:
        stem = f"{name.replace('/', '_')} {hashlib.sha256(stem.encode()).hexdigest()[:10]}"
    return store / "results" / f"{stem}.csv"
