"""Intervals and tests over a handful of seeds: pure functions over arrays. They import none of ours."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy  # it imports scipy.stats when first used, which takes half a second
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Interval",
    "bootstrap_items",
    "crossing",
    "expected_maximum",
    "holm",
    "mean_interval",
    "paired",
    "ratio_interval",
    "slope",
    "speedup",
    "whole_mean",
]

Array = NDArray[np.float64]
ROUNDING = 1e-12  # relative; what differs by less differs by the arithmetic that made it


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval over n seeds (or pairs, or items), and the two-sided p of the null."""

    estimate: float
    low: float
    high: float
    n: int
    p: float


def whole_mean(values: "pd.Series[float]") -> float:
    """The mean over the seeds; NaN where one of them diverged: what is left would flatter the cell."""
    return float(values.mean(skipna=False))


def mean_interval(values: ArrayLike, *, null: float = 0.0, level: float = 0.95) -> Interval:
    """mean ± t(n - 1) s / sqrt(n): Student's interval of a mean; low, high and p are nan for fewer than two values."""
    array = _finite("values", values)
    return _student(array, largest(array), null, level)


def paired(x: ArrayLike, y: ArrayLike, *, null: float = 0.0, level: float = 0.95) -> Interval:
    """Student's interval of the mean of x - y, pair by pair (the same seed in both arms).

    Differences that are all equal have an interval of no width, and p is 1 (they are the null) or 0.
    """
    first, second = as_pairs(x, y)
    return _student(first - second, max(largest(first), largest(second)), null, level)


def ratio_interval(x: ArrayLike, y: ArrayLike, *, null: float = 1.0, level: float = 0.95) -> Interval:
    """exp of the paired interval of log x - log y: the geometric mean of the ratios x / y. All must be positive."""
    first, second = as_pairs(x, y)
    for name, array in (("x", first), ("y", second)):
        if (array <= 0).any():
            raise ValueError(f"{name}: {array.min():g} has no logarithm; a ratio takes values above 0")
    found = paired(np.log(first), np.log(second), null=math.log(null), level=level)
    with np.errstate(over="ignore"):  # two pairs can have an interval without end
        estimate, low, high = np.exp([found.estimate, found.low, found.high]).tolist()
    return Interval(estimate, low, high, found.n, found.p)


def bootstrap_items(
    x: ArrayLike, y: ArrayLike, *, draws: int = 10_000, seed: int = 0, null: float = 0.0, level: float = 0.95
) -> Interval:
    """Accuracy of x less that of y, with the percentile interval over resampled test items; n counts the items.

    x, y: which items each seed had right, bool (seeds, items). An item drawn is drawn in both arms and in all seeds:
    the interval is about other test sets, for the runs as they are; `paired` is about other seeds. The difference is a
    mean over items, and items with equal differences are alike, so how often each difference is drawn is multinomial.
    p is 2 (1 + draws at or beyond the null) / (1 + draws), on the thinner side: never 0.
    """
    first, second = _answers("x", x), _answers("y", y)
    items = first.shape[1]
    if second.shape[1] != items or items == 0:
        raise ValueError(f"x has {items} items and y has {second.shape[1]}; they must be the same ones, and some")
    whole = len(first) * len(second)  # differences in units of 1 / whole are integers
    differences = first.sum(axis=0) * len(second) - second.sum(axis=0) * len(first)
    kinds, counts = np.unique(differences, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(items, counts / items, size=draws) @ kinds / (whole * items)
    low, high = np.quantile(drawn, [(1 - check_level(level)) / 2, (1 + level) / 2])
    beyond = min(int(np.sum(drawn <= null)), int(np.sum(drawn >= null)))
    estimate = float(differences.sum() / (whole * items))
    return Interval(estimate, float(low), float(high), items, min(1.0, 2 * (1 + beyond) / (1 + draws)))


def expected_maximum(values: ArrayLike, trials: Sequence[int]) -> Array:
    """E[best of k] = sum_i C(i-1, k-1) / C(n, k) v_(i), for each k of trials: k of the n values without replacement.

    Dodge et al. 2019 (1909.03004), section 3, in the unbiased form of Tang et al. 2020 (2004.13705): drawing with
    replacement, as the first does, can draw one value twice and comes out too low. A diverged trial was a trial: it is
    -inf, and the answer is -inf for the k that may draw nothing else. Raises ValueError for a k above n.
    """
    array = np.sort(np.asarray(values, dtype=float))[::-1]
    n = len(array)
    if np.isnan(array).any():
        raise ValueError(f"values: {np.isnan(array).sum()} of {n} are nan; a trial that diverged is -inf (a loss: inf)")
    best = []
    for k in trials:
        if not 1 <= k <= n:
            raise ValueError(f"trials: {k} of {n} values cannot be drawn; allowed: 1 to {n}")
        left = np.arange(n, 1, -1)  # C(i-2, k-1) / C(i-1, k-1) = (i-k) / (i-1), from the best value, i = n, downward
        weights = k / n * np.cumprod(np.concatenate([[1.0], (left - k) / (left - 1)]))
        likely = weights > 0  # 0 times -inf is no number
        best.append(float(weights[likely] @ array[likely]))
    return np.array(best)


def holm(p: ArrayLike) -> Array:
    """max over j <= i of (m - j + 1) p_(j), at most 1: Holm 1979. A nan is no test: it stays nan and is not in m."""
    array = np.asarray(p, dtype=float)
    if ((array < 0) | (array > 1)).any():
        raise ValueError(f"p: got {array.tolist()}; each must lie from 0 to 1, or be nan")
    adjusted = np.full(array.shape, np.nan)
    order = np.argsort(array, kind="stable")[: np.count_nonzero(~np.isnan(array))]  # nan sorts last
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(array[order] * np.arange(len(order), 0, -1)))
    return adjusted


def slope(x: ArrayLike, y: ArrayLike, *, null: float = 0.0, level: float = 0.95) -> Interval:
    """The slope of the least-squares line of y against x ± t(n - 2) standard errors; a point is the unit, n of them.

    Low, high and p are nan for fewer than three points, all of it is for fewer than two places.
    """
    place, value = as_pairs(x, y)
    n, scale = len(place), largest(value)
    if len(np.unique(place)) < 2:
        return Interval(math.nan, math.nan, math.nan, n, math.nan)
    line = scipy.stats.linregress(place, value)
    steep = float(line.slope)
    if n < 3:
        return Interval(steep, math.nan, math.nan, n, math.nan)
    half = float(scipy.stats.t.ppf((1 + check_level(level)) / 2, n - 2) * line.stderr)
    if half <= ROUNDING * scale:  # a line
        return Interval(steep, steep, steep, n, float(abs(steep - null) <= ROUNDING * scale))
    p = 2 * float(scipy.stats.t.sf(abs(steep - null) / line.stderr, n - 2))
    return Interval(steep, steep - half, steep + half, n, p)


def crossing(steps: ArrayLike, values: ArrayLike, target: float) -> float:
    """The first step from which the values stay at or above the target to the end; inf where they never do (censored).

    A nan lies below. A metric that falls is passed negated, with its target. Steps must increase.
    """
    step, value = np.asarray(steps, dtype=float), np.asarray(values, dtype=float)
    if step.shape != value.shape or step.ndim != 1:
        raise ValueError(f"steps has shape {step.shape} and values has {value.shape}; a value for each step is needed")
    if math.isnan(target) or not (np.diff(step) > 0).all():
        raise ValueError(f"target {target:g} must be a number, and the steps must increase: {step.tolist()}")
    below = np.flatnonzero(~(value >= target - ROUNDING * abs(target)))
    first = int(below[-1]) + 1 if len(below) else 0
    return float(step[first]) if first < len(step) else math.inf


def speedup(base: ArrayLike, other: ArrayLike, *, horizon: ArrayLike = math.inf, level: float = 0.95) -> Interval:
    """How many times sooner `other` crosses than `base`: base / other over pairs of crossings; inf is never.

    Where all cross: `ratio_interval`. Else no t: the median of the ratios, with the sign test's exact interval and p.
    There a run that never crossed did so at its horizon (the ratio is inf or 0 where it has none), which bounds how
    much sooner the other was; a pair in which neither crossed is left out.
    What is unknown counts against both ends: a run that did not cross by its `horizon` (one length of all runs, or two
    rows of lengths: of base and of other) may have crossed right after it, and a pair in which neither crossed may have
    any ratio. So 95% takes six pairs or more; with fewer the interval is (0, inf). Without a horizon, never is later
    than any step.
    """
    first, second = np.asarray(base, dtype=float), np.asarray(other, dtype=float)
    if first.shape != second.shape:
        raise ValueError(f"base has {len(first)} crossings and other has {len(second)}; they must be pairs")
    ends = np.broadcast_to(np.asarray(horizon, dtype=float), (2, len(first)))
    _check_crossings("base", first, ends[0])
    _check_crossings("other", second, ends[1])
    if np.isfinite(first).all() and np.isfinite(second).all():
        return ratio_interval(first, second, level=level)
    n, crossed_base, crossed_other = len(first), np.isfinite(first), np.isfinite(second)
    least, most = np.zeros(n), np.full(n, math.inf)  # bounds of each ratio
    least[crossed_other] = np.minimum(first, ends[0])[crossed_other] / second[crossed_other]
    most[crossed_base] = first[crossed_base] / np.minimum(second, ends[1])[crossed_base]
    known = crossed_base | crossed_other
    outside = int(
        np.sum(scipy.stats.binom.cdf(np.arange(n), n, 0.5) <= (1 - check_level(level)) / 2)
    )  # ratios cut at each end
    low, high = (np.sort(least)[outside - 1], np.sort(most)[n - outside]) if outside else (0.0, math.inf)
    against = min(np.sum(least <= 1), np.sum(most >= 1))
    p = min(1.0, 2 * float(scipy.stats.binom.cdf(against, n, 0.5)))
    estimate = _geometric_median(np.minimum(first, ends[0])[known], np.minimum(second, ends[1])[known])
    return Interval(estimate, float(low), float(high), n, p)


def _geometric_median(base: Array, other: Array) -> float:
    """Of base / other; between two in the middle, their geometric mean (nan between 0 and inf)."""
    ratios = np.sort(base / other).tolist()
    if not ratios:
        return math.nan
    low, high = ratios[(len(ratios) - 1) // 2], ratios[len(ratios) // 2]
    return low if low == high else math.sqrt(low * high)


def _student(values: Array, scale: float, null: float, level: float) -> Interval:
    """scale: of the numbers that the values were made from, which says how far rounding moves them."""
    n = len(values)
    check_level(level)
    estimate = float(values.mean()) if n else math.nan
    if n < 2:
        return Interval(estimate, math.nan, math.nan, n, math.nan)
    if np.ptp(values) <= ROUNDING * scale:
        return Interval(estimate, estimate, estimate, n, float(abs(estimate - null) <= ROUNDING * scale))
    found = scipy.stats.ttest_1samp(values, null)
    low, high = found.confidence_interval(level)
    return Interval(estimate, float(low), float(high), n, float(found.pvalue))


def largest(values: Array) -> float:
    return float(np.abs(values).max(initial=0.0))


def _finite(name: str, values: ArrayLike) -> Array:
    array = np.asarray(values, dtype=float)
    if array.ndim != 1:
        raise ValueError(f"{name}: has shape {array.shape}; one value a seed is needed")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: got {array.tolist()}; a run that diverged has no value: say what it counts as")
    return array


def as_pairs(x: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
    first, second = _finite("x", x), _finite("y", y)
    if first.shape != second.shape:
        raise ValueError(f"x has {len(first)} values and y has {len(second)}; they must be pairs")
    return first, second


def _answers(name: str, answers: ArrayLike) -> NDArray[np.bool_]:
    array = np.asarray(answers)
    if array.dtype != np.bool_ or array.ndim != 2 or len(array) == 0:
        raise ValueError(f"{name}: got {array.dtype} of shape {array.shape}; bool of shape (seeds, items) is needed")
    return array


def _check_crossings(name: str, crossings: Array, ends: Array) -> None:
    late = np.isfinite(crossings) & (crossings > ends)
    if crossings.ndim != 1 or late.any() or not (crossings > 0).all():
        allowed = f"each crossing is above 0 and by {ends.max(initial=0):g}, or inf"
        raise ValueError(f"{name}: got {crossings.tolist()}; {allowed}")


def check_level(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"level: got {level:g}; a level such as 0.95 lies between 0 and 1")
    return level
