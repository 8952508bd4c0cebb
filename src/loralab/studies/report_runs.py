"""The runs of a study for a report: settings, seed, scores, its directory, and the command that trains each."""

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
from pandas.api.types import is_numeric_dtype

from loralab.config.overrides import name_of, read, settings, to_override
from loralab.entries import typed
from loralab.store.metrics_file import MetricsFile
from loralab.store.run_directory import RunDirectory
from loralab.studies.completeness import as_swept
from loralab.studies.report_table import text
from loralab.studies.thinned_curves import is_curve
from loralab.sweeps.study import Study

__all__ = ["USUAL", "Run", "Runs", "commands", "directories_of", "runs_of", "varying"]

SCORES = ("train/", "validation/", "test/")
DIGITS = {"seconds": 1}  # of a number; of a score four
USUAL = Path(os.environ.get("LORALAB_STORE", "outputs"))
"""The store of commands that name none."""
LEFT_OUT = ("hydra", "tracker", "sweeps", "store")  # first parts of keys that are no part of a run


@dataclass(frozen=True)
class Run:
    """A run; cells: its texts under Runs.columns; directory: with the metrics.jsonl, "" if it is not in the store."""

    hash: str
    cells: tuple[str, ...]
    directory: str
    command: str


@dataclass(frozen=True)
class Runs:
    """All runs of a study. shared: the settings with one value; columns: stage, the other settings, status, scores."""

    columns: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[Run, ...]
    shared: Mapping[str, str]


def runs_of(frame: pd.DataFrame, train: Mapping[str, str], directories: Mapping[str, str]) -> Runs | None:
    """The runs of a study's results, each once; None for results that are not of runs.

    train, directories: the commands, and the directories in the store, by hash.
    """
    if not {"hash", "stage", "status"} <= set(frame.columns):
        return None
    runs = frame.drop_duplicates("hash")
    axes, kept = _axes(runs), varying(runs)
    scores = [name for name in map(str, runs) if name.startswith(SCORES) and not is_curve(name)]
    last = [name for name in ("status", *scores, "seconds") if name in runs]
    shown = [kept[name].map(text) for name in kept]
    shown += [runs[name].map(partial(_measured, digits=DIGITS.get(name, 4))) for name in last]
    rows = zip(runs["hash"], zip(*shown, strict=True), strict=True)
    columns = (*map(str, kept), *last)
    return Runs(
        columns,
        tuple(is_numeric_dtype(runs[name]) for name in columns),
        tuple(Run(name, cells, directories.get(name, ""), train.get(name, "")) for name, cells in rows),
        {name: text(runs[name].iloc[0]) for name in axes if name not in kept and runs[name].notna().any()},
    )


def varying(frame: pd.DataFrame) -> pd.DataFrame:
    """One row for each run: its stage and the settings that vary among the runs, and its seed."""
    runs = frame.drop_duplicates("hash")
    return runs[[name for name in _axes(runs) if name == "seed" or runs[name].nunique(dropna=False) > 1]]


def _measured(value: object, *, digits: int) -> str:
    return f"{value:.{digits}f}" if isinstance(value, float) and value == value else text(value)


def _axes(runs: pd.DataFrame) -> list[str]:
    names = list(map(str, runs))
    return names[names.index("stage") : names.index("status")]


def commands(study: Study, frame: pd.DataFrame, store: Path) -> dict[str, str]:
    """Hash -> the shell command that trains this run alone, with the settings of the study's file.

    The runs of the second stage are those of the first with fresh values. A run that the results do not tell from
    another has none.
    """
    fresh = {name for axis in study.spec.confirm.params for name in axis.names} if study.spec.confirm else set()
    runs = as_swept(study, frame.drop_duplicates("hash"))
    names = [name for name in study.axes if name in runs and name not in fresh]
    found: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    for job in study.grid:
        values = settings(job)
        rest = tuple(each for each in job if (name := name_of(read(each))) not in fresh and not _is_apart(name))
        found.setdefault(tuple(_override(values.get(name)) for name in names), set()).add(rest)
    start = f"{typed('train')} sweeps={study.name} hydra.mode=RUN"
    end = [] if store == USUAL else [f"store={to_override(str(store))}"]
    told = {}
    for _, row in runs.iterrows():
        jobs = found.get(tuple(_override(row[name]) for name in names), set())
        if len(jobs) == 1 and fresh <= set(runs.columns):
            values = {name: row[name] for name in study.axes if name in fresh}  # NaN: not in the first stage
            own = [f"{name}={to_override(value)}" for name, value in values.items() if value is None or value == value]
            told[str(row["hash"])] = f"{start} {shlex.join([*next(iter(jobs)), *own, *end])}"
    return told


def _is_apart(key: str) -> bool:
    return key.partition(".")[0] in LEFT_OUT


def _override(value: object) -> str:
    return "" if value is None or value != value else to_override(value)


def directories_of(store: Path) -> dict[str, str]:
    """Hash -> the directory of each run in the store that has a curve."""
    files = sorted((store / "runs").glob(f"*/{MetricsFile.FILE}"))
    return {RunDirectory(file.parent).hash: str(file.parent) for file in files}
