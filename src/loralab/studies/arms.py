"""The arms of a study: each with its rate tuned in a window of its own (stage grid), then on fresh seeds (confirm).

An arm is its rows of one task and setting; columns as loralab.sweeps.collect.table has them. First any arms, then those
of a study of ratios, named by λ. Used by several analyses.
"""

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import t as student

from loralab.store.predictions import unpacked
from loralab.store.run_directory import RunDirectory
from loralab.studies import figures
from loralab.studies.stats import Interval, Minimum, bootstrap_items, mean_interval, paired, quadratic_minimum

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from loralab.studies.results import Tables

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
    "level",
    "optimum",
    "over_items",
    "pair_optimum",
    "rate_optimum",
    "ratios",
    "shared",
    "tuned",
    "widths",
]

Array = NDArray[np.float64]
REACH = 6.0  # of the search for where a surface may be lowest: standard deviations of the cells' places
FINE = 301  # places of that search, each way


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


def widths(tables: "Tables") -> list[float]:
    """n of each run, A's input width: the parameters of all A over their number and rank; NaN without a record."""
    found = []
    for run in tables.runs["run"]:
        record = RunDirectory(tables.store / "runs" / run).record()
        groups = () if record is None else record.get("groups", ())  # a run that failed early has none
        own = [group for group in groups if group["name"] == "A"]
        rank = record["config"]["lora"]["rank"] if record is not None else 0
        found.append(own[0]["parameters"] / (own[0]["tensors"] * rank) if own else np.nan)
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


def level(own: pd.DataFrame, metric: str) -> Interval:
    """An arm's mean score over the fresh seeds (Student t); NaN where a run diverged."""
    scores = fresh(own)[metric]
    return _unknown(len(scores)) if scores.isna().any() else mean_interval(scores)


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


def rate_optimum(rows: pd.DataFrame, ratio: float = 1) -> Minimum:
    """log2 of the lr_A where a parabola through a ratio's validation losses is lowest, by the seeds that selected.

    It goes through the rate with the lowest mean and those within a factor of two of it, for farther up training
    collapses. The unit is the run, each seed with a level of its own. NaN where the lowest is at the window's end.
    """
    own = _of(rows, ratio)
    grid = own[own["stage"] == "grid"]
    means = grid.groupby("optim.lr")["validation/loss"].agg(figures.whole_mean).dropna()
    if means.empty:
        return quadratic_minimum([], [])
    rates = means.index.to_numpy(dtype=float)
    near = grid[grid["optim.lr"].isin(rates[np.abs(np.log2(rates / rates[int(means.argmin())])) < 1.1])]
    return quadratic_minimum(np.log2(near["optim.lr"]), near["validation/loss"], blocks=near["seed"])


def pair_optimum(rows: pd.DataFrame) -> tuple[Minimum, Minimum]:
    """log2 of the lr_A and of the lr_B where a quadratic surface through the windows' cells is lowest.

    A cell is a mean validation loss over the selection seeds, and the unit; the better half of them is fitted, for
    beyond lies the cliff where training collapses, which no quadratic follows. Interior: inside the rates and the
    ratios of these cells.
    """
    cells = tuned(rows).dropna(subset="validation/loss")
    cells = cells[cells["validation/loss"] <= cells["validation/loss"].median()]
    ratio, lr_A = (np.log2(cells[key].to_numpy(dtype=float)) for key in ("lora.ratio", "optim.lr"))
    return _surface_minimum(np.column_stack([lr_A, lr_A + ratio]), cells["validation/loss"].to_numpy(dtype=float))


def _surface_minimum(places: Array, values: Array) -> tuple[Minimum, Minimum]:
    """Both coordinates of -H^-1 g of the least-squares x^T H x / 2 + g x + c, with profile intervals of 95%.

    An interval holds each value for which some value of the other has g + H x = 0 not rejected, in t^2 of n - 6
    degrees of freedom: `quadratic_minimum` in the plane. One that reaches the search's end is without end there.
    """
    nowhere = quadratic_minimum([], [])
    degrees = len(values) - 6
    if degrees < 1 or min(len(np.unique(column)) for column in places.T) < 3:
        return nowhere, nowhere
    middle, scale = places.mean(axis=0), places.std(axis=0)
    x, y = ((places - middle) / scale).T
    design = np.column_stack([x * x / 2, x * y, y * y / 2, x, y, np.ones_like(x)])
    fit, _, rank, _ = np.linalg.lstsq(design, values)
    H = np.array([[fit[0], fit[1]], [fit[1], fit[2]]])
    if rank < 6 or np.linalg.eigvalsh(H)[0] <= 1e-12 * np.abs(values).max():
        return nowhere, nowhere
    at = -np.linalg.solve(H, fit[3:5])
    covariance = np.linalg.inv(design.T @ design) * np.sum((values - design @ fit) ** 2) / degrees
    ends = _not_rejected(fit[:5], covariance[:5, :5], at, float(student.ppf(0.975, degrees)) ** 2)
    lowest, ratio = middle + scale * at, places[:, 1] - places[:, 0]
    inside = bool(((places.min(axis=0) < lowest) & (lowest < places.max(axis=0))).all())
    inside &= bool(ratio.min() <= lowest[1] - lowest[0] <= ratio.max())
    found = []
    for axis in (0, 1):
        low, high = (middle[axis] + scale[axis] * ends[axis]).tolist()
        found.append(Minimum(float(lowest[axis]), low, high, float(H[axis, axis] / scale[axis] ** 2), inside, np.nan))
    return found[0], found[1]


def _not_rejected(fit: Array, covariance: Array, at: Array, t2: float) -> Array:
    """For each coordinate the ends of the values at which the slope can be 0: (g + H x)^T V^-1 (g + H x) <= t2.

    Over a grid of x about `at`, that narrows to what is left of it three times; fit: the entries of H and g.
    """
    ends = np.array([[-REACH, REACH]] * 2)
    for _ in range(3):
        each = [np.linspace(low, high, FINE) for low, high in ends]
        p, q = np.meshgrid(*each, indexing="ij")
        zero, one = np.zeros_like(p), np.ones_like(p)
        toward = np.array([[p, q, zero, one, zero], [zero, p, q, zero, one]])  # times fit it is g + H x
        slope = np.einsum("icpq,c->ipq", toward, fit)
        spread = np.einsum("icpq,jcpq->ijpq", toward, np.tensordot(covariance, toward, (1, 1)).swapaxes(0, 1))
        determinant = np.maximum(spread[0, 0] * spread[1, 1] - spread[0, 1] ** 2, np.finfo(float).tiny)
        cross = 2 * spread[0, 1] * slope[0] * slope[1]
        kept = spread[1, 1] * slope[0] ** 2 - cross + spread[0, 0] * slope[1] ** 2 <= t2 * determinant
        for axis, line in enumerate(each):
            left = np.append(line[kept.any(axis=1 - axis)], at[axis])
            step = line[1] - line[0]
            ends[axis] = max(left.min() - step, -REACH), min(left.max() + step, REACH)
    return np.where(np.abs(ends) < REACH, ends, np.copysign(np.inf, ends))


def against_ratio(ax: "Axes", rows: pd.DataFrame, metric: str, label: str, at: int) -> None:
    """Means on fresh seeds; a bar is the interval of the difference from λ = 1, so one that misses the line tells."""
    colour, found, one = figures.COLOURS[at], ratios(rows), _of(rows, 1)
    places = (np.array(found) * 2 ** (0.16 * (at - 0.5))).tolist()
    ax.axhline(figures.whole_mean(fresh(one)[metric]), color=colour, lw=0.6, ls=":")
    against(ax, places, [(_of(rows, ratio), one) for ratio in found], metric, label, colour)
    ax.set_xscale("log", base=2)
    figures.label_powers(ax.xaxis, found)
