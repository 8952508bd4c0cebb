"""The arms of a study: each tunes its rate in its own window (stage grid), then runs on fresh seeds (stage confirm).

An arm is the rows of one task and setting, with the columns of loralab.sweeps.collect.table.
"""

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from loralab.store.predictions import unpacked
from loralab.store.run_directory import RunDirectory, is_final
from loralab.studies import captions
from loralab.studies.stats import Interval, bootstrap_items, mean_interval, paired, whole_mean

if TYPE_CHECKING:
    from loralab.studies.tables import Tables


__all__ = [
    "comparison_row",
    "confirm_runs",
    "gain_over_items",
    "interior",
    "level",
    "paired_difference",
    "record_values",
    "select_columns",
    "shared",
    "split_arms",
    "widths",
]

Array = NDArray[np.float64]


def select_columns(tables: "Tables", columns: Sequence[str]) -> pd.DataFrame:
    """These columns of the runs, and the test examples that a run on fresh seeds got right; "" in the first stage."""
    runs = tables.runs
    correct = [
        tables.correct(run) if stage == "confirm" else "" for run, stage in zip(runs["run"], runs["stage"], strict=True)
    ]
    return runs[list(columns)].assign(correct=correct)


def record_values(tables: "Tables", *path: str) -> list[float]:
    """The number at a path in each run's record, such as parameters, trainable; NaN if the record lacks it."""
    found = []
    for run in tables.runs["run"]:
        at: Any = RunDirectory(tables.store / "runs" / run).record()
        for key in path:
            at = None if at is None else at.get(key)
        found.append(np.nan if at is None else float(at))
    return found


def widths(tables: "Tables") -> list[float]:
    """n of each run, A's input width: parameters of all A / (number of A * rank); NaN without a record."""
    found = []
    for run in tables.runs["run"]:
        record = RunDirectory(tables.store / "runs" / run).record()
        groups = record["groups"] if is_final(record) else []
        own = [group for group in groups if group["name"] == "A"]
        rank = record["config"]["lora"]["rank"] if record is not None else 0
        found.append(own[0]["parameters"] / (own[0]["tensors"] * rank) if own else np.nan)
    return found


def split_arms(rows: pd.DataFrame, by: Sequence[str]) -> dict[Any, pd.DataFrame]:
    """The arms by their values on the axes `by` (a tuple for several axes), in the order of the rows."""
    found: dict[Hashable, pd.DataFrame] = {}
    for key, own in rows.groupby(list(by), sort=False):
        assert isinstance(key, tuple)
        found[key if len(by) > 1 else key[0]] = own
    return found


def confirm_runs(own: pd.DataFrame) -> pd.DataFrame:
    """An arm's runs on fresh seeds, in the order of the seeds; a diverged run has no scores."""
    return own[own["stage"] == "confirm"].sort_values("seed")


def level(own: pd.DataFrame, metric: str) -> Interval:
    """An arm's mean score over the fresh seeds (Student t); NaN if a run diverged."""
    scores = confirm_runs(own)[metric]
    return _unknown(len(scores)) if scores.isna().any() else mean_interval(scores)


def paired_difference(own: pd.DataFrame, base: pd.DataFrame, metric: str, *, null: float = 0.0) -> Interval:
    """An arm's score minus another's, paired by fresh seed (Student t); NaN if a run diverged."""
    some, other = (confirm_runs(each)[metric].to_numpy(dtype=float) for each in (own, base))
    return _unknown(len(other)) if np.isnan([*some, *other]).any() else paired(some, other, null=null)


def gain_over_items(own: pd.DataFrame, base: pd.DataFrame) -> Interval:
    """An arm's accuracy minus another's, with the test examples resampled (bootstrap)."""
    texts = [confirm_runs(each)["correct"].fillna("").tolist() for each in (own, base)]
    if "" in [text for arm_texts in texts for text in arm_texts]:
        return _unknown(0)
    some, other = (np.stack([unpacked(text) for text in each]) for each in texts)
    return bootstrap_items(some, other)


def interior(rows: pd.DataFrame, ratio: float | None = None) -> bool:
    """Whether an arm's best rate, or a rate within a standard error of it, is inside its window.

    ratio: use the rows of this λ; None: all rows.
    """
    own = rows if ratio is None else rows[rows["lora.ratio"] == ratio]
    grid = own[own["stage"] == "grid"].groupby("optim.lr")["validation/loss"]
    means, errors = grid.agg(whole_mean), grid.sem().fillna(0)  # one seed has no standard error
    rates, best = means.index.to_numpy(dtype=float), int(means.argmin())
    ties = rates[(means <= means.iloc[best] + errors.iloc[best]).to_numpy()]
    return bool(((rates.min() < ties) & (ties < rates.max())).any())


def comparison_row(own: pd.DataFrame, base: pd.DataFrame) -> dict[str, Any]:
    """An arm's row of a summary: its selected rate, its fresh scores, and its differences from another arm."""
    runs, by_seed, by_item = (
        confirm_runs(own),
        paired_difference(own, base, "test/accuracy"),
        gain_over_items(own, base),
    )
    return {
        "lr_A": runs["optim.lr"].iloc[0],
        "test accuracy": round(whole_mean(runs["test/accuracy"]), 4),
        "test loss": round(whole_mean(runs["test/loss"]), 4),
        "difference, points": f"{100 * by_seed.estimate:+.2f}",
        "by seed": _ends(by_seed),
        "by test item": _ends(by_item),
    }


def _ends(found: Interval) -> str | None:
    """An interval in points; None where it is not known, as with one seed."""
    return None if np.isnan(found.low) else f"[{100 * found.low:.2f}, {100 * found.high:.2f}]"


def shared(frame: pd.DataFrame) -> str:
    """`TREC, MiniLM, 100 steps of 32`: the settings that the arms share, for a caption."""
    model = ", ".join(captions.NAMES.get(name, name) for name in frame["model"].unique())
    steps, batch = (" or ".join(f"{n:g}" for n in frame[f"train.{key}"].unique()) for key in ("steps", "batch_size"))
    return f"{captions.tasks(frame)}, {model}, {steps} steps of {batch}"


def _unknown(n: int) -> Interval:
    return Interval(np.nan, np.nan, np.nan, n, np.nan)
