"""A study's runs as tables, for people (`load_study`) and as the CSV that its figures are drawn from."""

import hashlib
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from loralab.collect import curves, table
from loralab.errors import UserError
from loralab.files import write_text
from loralab.listing import CONF
from loralab.study import Study, open_study

__all__ = ["Tables", "load_study", "reduced", "save"]

LONGEST_STEM = 200  # file systems allow 255 bytes, and a file is written under a longer name at first
ANALYSIS = CONF.parent / "analysis"
Reducer = Callable[["Tables"], pd.DataFrame]


class Tables(NamedTuple):
    """runs: one row a run (loralab.collect.table); curves: one row a logged value (loralab.collect.curves)."""

    runs: pd.DataFrame
    curves: pd.DataFrame


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
    return Tables(table(study.store, cells), curves(study.store, cells))


def reduced(name: str, found: Tables) -> pd.DataFrame:
    """What the study's figure is drawn from: `reduce` of analysis/<name>.py, else the runs."""
    path = ANALYSIS / f"{name}.py"
    if not path.is_file():
        return found.runs
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    reduce: Reducer = module.reduce
    return reduce(found)


def save(frame: pd.DataFrame, to: Path) -> None:
    """Writes the CSV whole or not at all; numbers in ten digits, which seconds since the epoch need."""
    if to.is_dir():
        raise UserError(f"--to: {to} is a directory; name a file")
    write_text(to, frame.to_csv(index=False, float_format="%.10g"))


def target(name: str, overrides: Sequence[str], store: Path) -> Path:
    """analysis/results/<name>.csv for the study as its file has it; a file in the store for any other part of it."""
    if not overrides:
        return ANALYSIS / "results" / f"{name}.csv"
    stem = f"{name} {' '.join(overrides)}".replace("/", "_")
    if len(stem.encode()) > LONGEST_STEM:
        stem = f"{name.replace('/', '_')} {hashlib.sha256(stem.encode()).hexdigest()[:10]}"
    return store / "results" / f"{stem}.csv"
