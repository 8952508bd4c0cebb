"""Intervals and tests over a handful of seeds: pure functions over arrays, without imports from loralab."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy  # imported on first use: scipy.stats takes half a second to import
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Interval",
    "bootstrap_items",
    "expected_maximum",
    "holm",
    "interval_of",
    "mean_interval",
    "paired",
    "ratio_interval",
    "slope",
    "whole_mean",
]

Array = NDArray[np.float64]
ROUNDING = 1e-12  # relative; smaller differences are rounding errors


@dataclass(frozen=True)
class Interval:
    """An estimate, its interval over n seeds (or pairs, or items), and the two-sided p-value of the null hypothesis.

    degrees: of freedom of Student's t, where they are not n - 1.
    """

    estimate: float
    low: float
    high: float
    n: int
    p: float
    degrees: float | None = None


def whole_mean(values: "pd.Series[float]") -> float:
    """The mean over the seeds; NaN if one diverged, because the mean of the others would be biased."""
    return float(values.mean(skipna=False))


def interval_of(estimate: float, error: float, degrees: float, n: int, *, null: float = 0.0) -> Interval:
    """estimate ± t(degrees) error, 95%: Student's interval from a standard error; NaN where that is NaN."""
    half = float(scipy.stats.t.ppf(0.975, degrees)) * error
    if error == 0:
        return Interval(estimate, estimate, estimate, n, float(estimate == null), degrees)
    p = 2 * float(scipy.stats.t.sf(abs(estimate - null) / error, degrees))
    return Interval(estimate, estimate - half, estimate + half, n, p, degrees)


def mean_interval(values: ArrayLike, *, null: float = 0.0, level: float = 0.95) -> Interval:
    """mean ± t(n - 1) s / sqrt(n): Student's interval of a mean; low, high and p are nan for fewer than two values."""
    array = _finite("values", values)
    return _student(array, largest(array), null, level)


def paired(x: ArrayLike, y: ArrayLike, *, null: float = 0.0, level: float = 0.95) -> Interval:
    """Student's interval of the mean of x - y, pair by pair (the same seed in both arms).

    If all differences are equal, the interval has zero width, and p is 1 (they equal the null) or 0.
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
    with np.errstate(over="ignore"):  # two pairs can have an infinite interval
        estimate, low, high = np.exp([found.estimate, found.low, found.high]).tolist()
    return Interval(estimate, low, high, found.n, found.p)


def bootstrap_items(
    x: ArrayLike, y: ArrayLike, *, draws: int = 10_000, seed: int = 0, null: float = 0.0, level: float = 0.95
) -> Interval:
    """Accuracy of x minus accuracy of y, with the percentile interval over resampled test items; n counts the items.

    x, y: which items each seed got right, bool (seeds, items). A draw takes an item in both arms and for all seeds. The
    interval is therefore over test sets, with the runs fixed; that of `paired` is over seeds. The difference is a mean
    over items, and items with equal differences are interchangeable, so the number of times that each difference is
    drawn is multinomial. p is 2 (1 + draws at or beyond the null) / (1 + draws), on the side with fewer draws: never 0.
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

    Dodge et al. 2019 (1909.03004), section 3, in the unbiased form of Tang et al. 2020 (2004.13705): the estimator of
    Dodge et al. draws with replacement, so it can draw a value twice and is too low. A diverged trial counts as -inf;
    the result is -inf for each k that can draw only diverged trials. Raises ValueError for a k above n.
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
        likely = weights > 0  # 0 * -inf is nan
        best.append(float(weights[likely] @ array[likely]))
    return np.array(best)


def holm(p: ArrayLike) -> Array:
    """max over j <= i of (m - j + 1) p_(j), at most 1: Holm 1979. A nan stays nan and is not counted in m."""
    array = np.asarray(p, dtype=float)
    if ((array < 0) | (array > 1)).any():
        raise ValueError(f"p: got {array.tolist()}; each must lie from 0 to 1, or be nan")
    adjusted = np.full(array.shape, np.nan)
    order = np.argsort(array, kind="stable")[: np.count_nonzero(~np.isnan(array))]  # nan sorts last
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(array[order] * np.arange(len(order), 0, -1)))
    return adjusted


def slope(
    x: ArrayLike, y: ArrayLike, *, blocks: ArrayLike | None = None, null: float = 0.0, level: float = 0.95
) -> Interval:
    """The slope of the least-squares line of y against x, ± t(n - 2) standard errors; n counts the points.

    blocks: a label per point, such as its arm; each block has its own intercept, which costs a degree of freedom. Low,
    high and p are nan without a degree of freedom; all values are nan if no block has two distinct x.
    """
    place, value = as_pairs(x, y)
    n, scale, far = len(place), largest(value), largest(place)
    labels = np.zeros(n) if blocks is None else np.asarray(blocks)
    own = labels[:, None] == np.unique(labels)
    place, value = (of - own @ ((of @ own) / own.sum(axis=0)) for of in (place, value))
    square, degrees = float(place @ place), n - own.shape[1] - 1
    if square <= (ROUNDING * far) ** 2:
        return Interval(math.nan, math.nan, math.nan, n, math.nan)
    steep = float(place @ value) / square
    if degrees < 1:
        return Interval(steep, math.nan, math.nan, n, math.nan)
    error = math.sqrt(float(np.sum((value - steep * place) ** 2)) / degrees / square)
    half = float(scipy.stats.t.ppf((1 + check_level(level)) / 2, degrees)) * error
    if half <= ROUNDING * scale:  # a line
        return Interval(steep, steep, steep, n, float(abs(steep - null) <= ROUNDING * scale), degrees)
    p = 2 * float(scipy.stats.t.sf(abs(steep - null) / error, degrees))
    return Interval(steep, steep - half, steep + half, n, p, degrees)


def _student(values: Array, scale: float, null: float, level: float) -> Interval:
    """Student's interval; scale: magnitude of the numbers behind the values, which sets the size of rounding errors."""
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


def check_level(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"level: got {level:g}; a level such as 0.95 lies between 0 and 1")
    return level
