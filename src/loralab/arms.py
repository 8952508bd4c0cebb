"""The arms of a study of ratios: each λ with lr_A tuned in its own window (stage grid), then on fresh seeds (confirm).

Rows are those of one task and one setting; columns as loralab.collect.table has them. Used by several analyses.
"""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from loralab import figures
from loralab.stats import Interval, Minimum, bootstrap_items, paired, quadratic_minimum
from loralab.store.predictions import unpacked

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["against_ratio", "arm", "chosen", "difference", "interior", "optimum", "over_items", "ratios", "tuned"]


def arm(rows: pd.DataFrame, ratio: float) -> pd.DataFrame:
    """An arm's runs of fresh seeds, in the order of the seeds; a diverged one has no scores."""
    found = rows[(rows["stage"] == "confirm") & (rows["lora.ratio"] == ratio)]
    return found.sort_values("seed")


def ratios(rows: pd.DataFrame) -> list[float]:
    return sorted(rows["lora.ratio"].unique())


def difference(rows: pd.DataFrame, ratio: float, metric: str, *, null: float = 0.0) -> Interval:
    """An arm's score minus that of λ = 1, paired by the fresh seed (Student t); NaN where a run diverged."""
    some, one = (arm(rows, each)[metric].to_numpy(dtype=float) for each in (ratio, 1))
    return _unknown(len(one)) if np.isnan([*some, *one]).any() else paired(some, one, null=null)


def over_items(rows: pd.DataFrame, ratio: float) -> Interval:
    """The same of accuracy, with the test examples resampled (bootstrap)."""
    texts = [arm(rows, each)["correct"].fillna("").tolist() for each in (ratio, 1)]
    if "" in [text for arm_texts in texts for text in arm_texts]:
        return _unknown(0)
    some, one = (np.stack([unpacked(text) for text in each]) for each in texts)
    return bootstrap_items(some, one)


def _unknown(n: int) -> Interval:
    return Interval(np.nan, np.nan, np.nan, n, np.nan)


def tuned(rows: pd.DataFrame) -> pd.DataFrame:
    """For each λ and lr_A of the windows the mean validation loss over the selection seeds; NaN if one diverged."""
    grid = rows[rows["stage"] == "grid"]
    found = grid.groupby(["lora.ratio", "optim.lr"])["validation/loss"].agg(figures.whole_mean)
    return found.reset_index()


def chosen(rows: pd.DataFrame, *, above: float = 0.0) -> float:
    """The ratio with the lowest validation loss over the windows, among those above a number."""
    found = tuned(rows)
    found = found[found["lora.ratio"] > above]
    return float(found.nsmallest(1, "validation/loss")["lora.ratio"].iloc[0])


def optimum(rows: pd.DataFrame) -> Minimum:
    """log2 of the ratio where a parabola through the arms' mean test losses is lowest.

    The unit is the arm, whose seeds share one selected rate and its error; NaN where an arm has a diverged run.
    """
    found = [ratio for ratio in ratios(rows) if len(arm(rows, ratio))]
    means = [figures.whole_mean(arm(rows, ratio)["test/loss"]) for ratio in found]
    if np.isnan(means).any():
        return quadratic_minimum([], [])
    return quadratic_minimum(np.log2(found), means)


def interior(rows: pd.DataFrame, ratio: float) -> bool:
    """Whether a ratio's best rate is inside its window, or one inside is within a standard error of it."""
    grid = rows[(rows["stage"] == "grid") & (rows["lora.ratio"] == ratio)].groupby("optim.lr")["validation/loss"]
    means, errors = grid.agg(figures.whole_mean), grid.sem().fillna(0)  # one seed has no error
    rates, best = means.index.to_numpy(dtype=float), int(means.argmin())
    ties = rates[(means <= means.iloc[best] + errors.iloc[best]).to_numpy()]
    return bool(((rates.min() < ties) & (ties < rates.max())).any())


def against_ratio(ax: "Axes", rows: pd.DataFrame, metric: str, label: str, at: int) -> None:
    """Means on fresh seeds; a bar is the interval of the difference from λ = 1, so one that misses the line tells."""
    colour, found = figures.COLOURS[at], ratios(rows)
    one = figures.whole_mean(arm(rows, 1)[metric])
    ends = [difference(rows, ratio, metric) for ratio in found]
    means = np.array([figures.whole_mean(arm(rows, ratio)[metric]) for ratio in found])
    low, high = (np.array([one + getattr(each, end) for each in ends]) for end in ("low", "high"))
    places = np.array(found) * 2 ** (0.16 * (at - 0.5))
    ax.axhline(one, color=colour, lw=0.6, ls=":")
    ax.errorbar(
        places,
        means,
        yerr=np.clip([means - low, high - means], 0, None),  # an interval of no width, but for rounding
        color=colour,
        fmt="o-",
        lw=0.9,
        elinewidth=0.8,
        label=label,
    )
    ax.set_xscale("log", base=2)
    figures.label_powers(ax.xaxis, found)
