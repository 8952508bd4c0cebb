"""The arms of a study: each with its rate tuned in a window of its own (stage grid), then on fresh seeds (confirm).

An arm is its rows of one task and setting; columns as loralab.collect.table has them. First any arms, then those of a
study of ratios, named by λ. Used by several analyses.
"""

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from loralab import figures
from loralab.stats import Interval, Minimum, bootstrap_items, paired, quadratic_minimum
from loralab.store.predictions import unpacked
from loralab.store.runs import RunDirectory

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from loralab.results import Tables

__all__ = [
    "against",
    "against_ratio",
    "apart",
    "arm",
    "chosen",
    "compared",
    "difference",
    "facts",
    "fresh",
    "gain",
    "gain_over_items",
    "interior",
    "kept",
    "optimum",
    "over_items",
    "ratios",
    "shared",
    "tuned",
]


def kept(tables: "Tables", columns: Sequence[str]) -> pd.DataFrame:
    """These columns of the runs, and which test examples a run of fresh seeds got right; "" in the first stage."""
    runs = tables.runs
    correct = [
        tables.correct(run) if stage == "confirm" else "" for run, stage in zip(runs["run"], runs["stage"], strict=True)
    ]
    return runs[list(columns)].assign(correct=correct)


def facts(tables: "Tables", *path: str) -> list[float]:
    """The number at a path of each run's record, such as parameters, trainable; NaN for a run that has none."""
    found = []
    for run in tables.runs["run"]:
        at: Any = RunDirectory(tables.store / "runs" / run).record()
        for key in path:
            at = None if at is None else at.get(key)
        found.append(np.nan if at is None else float(at))
    return found


def apart(rows: pd.DataFrame, by: Sequence[str]) -> dict[Any, pd.DataFrame]:
    """The arms by their values on the axes `by`, a tuple where these are several; in the order of the rows."""
    found: dict[Hashable, pd.DataFrame] = {}
    for key, own in rows.groupby(list(by), sort=False):
        assert isinstance(key, tuple)
        found[key if len(by) > 1 else key[0]] = own
    return found


def fresh(own: pd.DataFrame) -> pd.DataFrame:
    """An arm's runs of fresh seeds, in the order of the seeds; a diverged one has no scores."""
    return own[own["stage"] == "confirm"].sort_values("seed")


def gain(own: pd.DataFrame, base: pd.DataFrame, metric: str, *, null: float = 0.0) -> Interval:
    """An arm's score minus another's, paired by the fresh seed (Student t); NaN where a run diverged."""
    some, other = (fresh(each)[metric].to_numpy(dtype=float) for each in (own, base))
    return _unknown(len(other)) if np.isnan([*some, *other]).any() else paired(some, other, null=null)


def gain_over_items(own: pd.DataFrame, base: pd.DataFrame) -> Interval:
    """The same of accuracy, with the test examples resampled (bootstrap)."""
    texts = [fresh(each)["correct"].fillna("").tolist() for each in (own, base)]
    if "" in [text for arm_texts in texts for text in arm_texts]:
        return _unknown(0)
    some, other = (np.stack([unpacked(text) for text in each]) for each in texts)
    return bootstrap_items(some, other)


def interior(rows: pd.DataFrame, ratio: float | None = None) -> bool:
    """Whether an arm's best rate is inside its window, or one inside is within a standard error of it.

    ratio: the arm is that of this λ among the rows; None: all of them.
    """
    own = rows if ratio is None else _of(rows, ratio)
    grid = own[own["stage"] == "grid"].groupby("optim.lr")["validation/loss"]
    means, errors = grid.agg(figures.whole_mean), grid.sem().fillna(0)  # one seed has no error
    rates, best = means.index.to_numpy(dtype=float), int(means.argmin())
    ties = rates[(means <= means.iloc[best] + errors.iloc[best]).to_numpy()]
    return bool(((rates.min() < ties) & (ties < rates.max())).any())


def compared(own: pd.DataFrame, base: pd.DataFrame) -> dict[str, Any]:
    """An arm's row of a summary: its selected rate, its fresh scores, and its differences from another arm."""
    runs, by_seed, by_item = fresh(own), gain(own, base, "test/accuracy"), gain_over_items(own, base)
    return {
        "lr_A": runs["optim.lr"].iloc[0],
        "test accuracy": round(figures.whole_mean(runs["test/accuracy"]), 4),
        "test loss": round(figures.whole_mean(runs["test/loss"]), 4),
        "difference, points": f"{100 * by_seed.estimate:+.2f}",
        "by seed": f"[{100 * by_seed.low:.2f}, {100 * by_seed.high:.2f}]",
        "by test item": f"[{100 * by_item.low:.2f}, {100 * by_item.high:.2f}]",
    }


def against(
    ax: "Axes",
    places: Sequence[float],
    pairs: Sequence[tuple[pd.DataFrame, pd.DataFrame]],
    metric: str,
    label: str,
    colour: str,
) -> None:
    """A line through the means of arms on fresh seeds, at these places; pairs: an arm and what it is compared with.

    A bar is the interval of the difference, put on the mean of the other arm: one that misses that mean tells.
    """
    means, levels = ([figures.whole_mean(fresh(pair[at])[metric]) for pair in pairs] for at in (0, 1))
    ends = [gain(own, base, metric) for own, base in pairs]
    low, high = (np.array(levels) + [getattr(each, end) for each in ends] for end in ("low", "high"))
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


def shared(frame: pd.DataFrame) -> str:
    """`TREC, MiniLM, 100 steps of 32`: what the arms have in common, for a caption."""
    model = ", ".join(figures.NAMES.get(name, name) for name in frame["model"].unique())
    steps, batch = (" or ".join(f"{n:g}" for n in frame[f"train.{key}"].unique()) for key in ("steps", "batch_size"))
    return f"{figures.tasks(frame)}, {model}, {steps} steps of {batch}"


def _unknown(n: int) -> Interval:
    return Interval(np.nan, np.nan, np.nan, n, np.nan)


def _of(rows: pd.DataFrame, ratio: float) -> pd.DataFrame:
    return rows[rows["lora.ratio"] == ratio]


def arm(rows: pd.DataFrame, ratio: float) -> pd.DataFrame:
    """A ratio's runs of fresh seeds."""
    return fresh(_of(rows, ratio))


def ratios(rows: pd.DataFrame) -> list[float]:
    return sorted(rows["lora.ratio"].unique())


def difference(rows: pd.DataFrame, ratio: float, metric: str, *, null: float = 0.0) -> Interval:
    """A ratio's `gain` over λ = 1."""
    return gain(_of(rows, ratio), _of(rows, 1), metric, null=null)


def over_items(rows: pd.DataFrame, ratio: float) -> Interval:
    """A ratio's `gain_over_items` over λ = 1."""
    return gain_over_items(_of(rows, ratio), _of(rows, 1))


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


def against_ratio(ax: "Axes", rows: pd.DataFrame, metric: str, label: str, at: int) -> None:
    """Means on fresh seeds; a bar is the interval of the difference from λ = 1, so one that misses the line tells."""
    colour, found, one = figures.COLOURS[at], ratios(rows), _of(rows, 1)
    places = (np.array(found) * 2 ** (0.16 * (at - 0.5))).tolist()
    ax.axhline(figures.whole_mean(fresh(one)[metric]), color=colour, lw=0.6, ls=":")
    against(ax, places, [(_of(rows, ratio), one) for ratio in found], metric, label, colour)
    ax.set_xscale("log", base=2)
    figures.label_powers(ax.xaxis, found)
