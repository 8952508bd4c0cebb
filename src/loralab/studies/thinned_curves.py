"""The validation curve of a run as ten numbers of a CSV's row: at 10, 20, ..., 90% of its steps, and at its end.

validation/loss@0.3: the loss at the last validation not after 30% of the steps; NaN where the run has none, or ended
before. validation/loss: that of the last step. The task's primary metric has the same columns.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from loralab.store.record import Record
from loralab.store.run_directory import RunDirectory, is_final

__all__ = ["FEWEST", "SHARES", "curve", "curve_columns", "is_curve", "with_curves"]

SHARES = tuple(round(0.1 * tenth, 1) for tenth in range(1, 10))
FEWEST = 5  # validations after the first step; with fewer, most of the ten numbers would repeat others


def with_curves(runs: pd.DataFrame, curves: pd.DataFrame, store: Path) -> pd.DataFrame:
    """The runs with a column for each share and metric, last; unchanged if no run has FEWEST validations.

    runs, curves: one row per run, and one per logged value (loralab.sweeps.collect). A diverged run has its curve as
    far as it came, however few its validations.
    """
    logged = curves[(curves["split"] == "validation") & (curves["step"] > 0)]
    counts = logged.groupby("run")["step"].nunique()
    if not (counts >= FEWEST).any():
        return runs
    of_run = {str(run): rows for run, rows in curves[curves["split"] == "validation"].groupby("run")}
    rows = []
    for run, status in zip(runs["run"], runs["status"], strict=True):
        whole = status == "diverged" or counts.get(run, 0) >= FEWEST
        record = RunDirectory(store / "runs" / run).record() if whole and run in of_run else None
        rows.append(_thinned(of_run[run], record) if is_final(record) else {})
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: np.array([row.get(name, math.nan) for row in rows]) for name in names}
    return runs.assign(**columns)


def curve_columns(frame: pd.DataFrame) -> list[str]:
    """The columns of curves that a frame has."""
    return [str(name) for name in frame if is_curve(str(name))]


def is_curve(column: str) -> bool:
    """Whether a column is one of a curve, such as validation/loss@0.3."""
    return column.startswith("validation/") and column.rpartition("@")[2] in {f"{share:g}" for share in SHARES}


def curve(row: "Mapping[str, Any] | pd.Series", metric: str = "validation/loss") -> tuple[tuple[float, float], ...]:
    """(share of the steps, value) of one row of a CSV, ascending, the last step at 1; without what is NaN."""
    shares = {**{f"{metric}@{share:g}": share for share in SHARES}, metric: 1.0}
    values = {share: float(row.get(name, math.nan)) for name, share in shares.items()}
    return tuple((share, value) for share, value in values.items() if not math.isnan(value))


def _thinned(logged: pd.DataFrame, record: Record) -> dict[str, float]:
    steps, reached = _planned_steps(record), record["steps"]
    found = {}
    for metric in dict.fromkeys(("loss", record["metrics"]["primary"])):
        own = logged[logged["name"] == metric].sort_values("step")
        at, values = own["step"].to_numpy(), own["value"].to_numpy(dtype=float)
        for share in SHARES:
            step = share * steps + 1e-9  # .3 of 10 steps is 3 steps
            last = int(np.searchsorted(at, step, side="right")) - 1
            ended = record["status"] == "diverged" and step >= reached
            found[f"validation/{metric}@{share:g}"] = math.nan if last < 0 or ended else float(values[last])
    return found


def _planned_steps(record: Record) -> int:
    """The steps of the whole run, also of one that diverged before."""
    train = record["config"]["train"]
    if record["status"] == "success":
        return record["steps"]
    if train["steps"] is not None:
        return int(train["steps"])
    per_epoch: int = math.ceil(record["rows"]["train"] / train["batch_size"])
    return max(1, round(float(train["epochs"]) * per_epoch))
