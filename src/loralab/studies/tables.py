"""A study's runs as tables, read from the store: one row per run with its thinned curve, and one per logged value."""

import os
import shlex
import warnings
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from loralab.entries import typed
from loralab.errors import UserError
from loralab.store.predictions import packed_correct
from loralab.store.run_directory import FINAL
from loralab.studies.thinned_curves import with_curves
from loralab.sweeps.collect import curves, table
from loralab.sweeps.study import Study, open_study

__all__ = ["Tables", "Untrained", "load_study", "study_tables"]


class Tables(NamedTuple):
    """runs: one row per run (sweeps.collect.table), with its thinned curve where it was validated often enough
    (thinned_curves); curves: one row per logged value (sweeps.collect.curves).
    """

    runs: pd.DataFrame
    curves: pd.DataFrame
    store: Path

    def correct(self, run: str) -> str:
        """Which test examples a run got right at its last step, packed (loralab.store.predictions); "" if not saved."""
        path = self.store / "runs" / run / "predictions.parquet"
        return packed_correct(path) if path.is_file() else ""


def load_study(name: str, *overrides: str, store: str | Path | None = None) -> Tables:
    """The runs of sweeps/<name>.yaml: finished runs, and rows for those that are not finished.

    overrides: as on the command line, e.g. "seed=0" or "smoke=true"; store: None for $LORALAB_STORE, else outputs.
    Where none of its runs is finished, a warning says what trains them, and the columns of the losses and of the
    study's metric are there, without numbers. Raises UserError if the study does not exist.
    """
    with open_study(name, overrides, store=None if store is None else Path(store)) as study:
        try:
            return study_tables(study)
        except Untrained as why:
            warnings.warn(str(why), stacklevel=2)
            return _untrained(study)


def _command(study: Study) -> str:
    """What trains the study, or the sweep; without the store where that is the default."""
    default = Path(os.environ.get("LORALAB_STORE", "outputs"))
    stores = [word for word in study.words if word.startswith("store=")]
    left = stores if study.store == default else stores[:-1]  # the last one counts
    words = [word for word in study.words if word not in left and word != "--multirun"]
    if study.name is None:
        return shlex.join([*typed("train").split(), "-m", *words])
    return shlex.join([*typed("train").split(), *(word.removeprefix("+") for word in words)])


class Untrained(UserError):  # noqa: N818  # a state of a study
    """None of a study's runs is finished."""


def _untrained(study: Study) -> Tables:
    """The tables of a study without finished runs."""
    cells = study.cells()
    runs, long = table(study.store, cells), curves(study.store, cells, left_out={})
    names = dict.fromkeys(["loss", study.header.get("metric", "").rpartition("/")[2] or "loss"])
    scores = ["train/loss", *(f"{split}/{name}" for split in ("validation", "test") for name in names)]
    at = list(runs).index("step")
    for name in reversed([name for name in scores if name not in runs]):
        runs.insert(at, name, float("nan"))
    return Tables(runs, long, study.store)


def study_tables(study: Study) -> Tables:
    """Both tables of an opened study; a run with a damaged metrics.jsonl is `damaged`, and has no curves.

    Raises Untrained where none of its runs is finished: there are no scores.
    """
    sweep = "this sweep" if study.name is None else f"sweeps/{study.name}.yaml"
    none = f"{study.store / 'runs'}: no run of {sweep} is finished there"
    train = f"train them: {_command(study)}"
    if not any((study.store / "runs").glob("*/config.yaml")):  # the table identifies each run, which takes longer
        raise Untrained(f"{none}; {train}")
    cells, left_out = study.cells(), dict[str, str]()
    runs, long = table(study.store, cells), curves(study.store, cells, left_out=left_out)
    for run, why in left_out.items():
        runs.loc[runs["run"] == run, ["status", "error"]] = ("damaged", why)
    if not runs["status"].isin(FINAL).any():
        tally = ", ".join(f"{n} {status}" for status, n in runs["status"].value_counts().items())
        raise Untrained(f"{none} ({tally}); {train}")
    return Tables(with_curves(runs, long, study.store), long, study.store)
