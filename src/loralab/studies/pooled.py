"""score = arm of a setting (fixed) + seed of a setting (random) + error: one arm's gain over another in all settings.

The runs of all arms share one error variance. Test items are a second source of error, crossed with the seeds: another
test set would have other items, and more seeds do not reduce that error.
"""

import contextlib
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from loralab.store.predictions import unpacked
from loralab.studies.stats import ROUNDING, Array, Interval, interval_of, mean_interval

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Means", "Pooled", "item_covariance", "mixed_means", "pooled_gain", "pooled_ratios", "population_mean"]

TEST_SET = "task"  # settings that share it have the same test items
NO_VARIANCE = 1e-6  # between blocks, relative to the error's: Powell's search for 0 ends at 1e-8 to 2e-8 (360 draws)
Pair = tuple["pd.DataFrame", "pd.DataFrame"]
"""A setting's runs of both arms, each in the order of the seeds."""


@dataclass(frozen=True)
class Pooled:
    """The mean of the settings' gains, and what it rests on.

    effect: with the errors of seeds and of items; n counts the pairs of runs. population: the mean over all settings
    like these (`population_mean`). items: the standard error of the effect that comes from the test items, 0 without
    predictions. settings: each one's gain, with both errors; n counts its seeds.
    """

    effect: Interval
    population: Interval
    items: float
    settings: dict[tuple[object, ...], Interval]


@dataclass(frozen=True)
class Means:
    """The means of cells (an arm in a setting), ascending by label, their covariance, and its degrees of freedom.

    Only differences between the cells of a setting have a meaning: they are free of what its seeds share.
    """

    means: Array
    covariance: Array
    degrees: int


def pooled_gain(runs: "pd.DataFrame", own: object, base: object, *, arm: str, by: Sequence[str], metric: str) -> Pooled:
    """The gain of arm `own` over arm `base` in a metric, from the runs of all arms on fresh seeds.

    by: the columns that tell settings apart; a setting that lacks an arm is left out. No intervals if a setting has one
    seed, if the scores do not vary, or if a run of the two arms diverged. The items' error is added where `correct`
    (loralab.studies.arms.select_columns) has what the metric is the mean of.
    """
    labels = {"setting": [*by], "cell": [*by, arm], "block": [*by, "seed"]}
    runs = runs.assign(**{name: runs.groupby(keys, dropna=False).ngroup() for name, keys in labels.items()})
    pairs = _pairs(runs, own, base, arm)
    counts = [len(first) for first, _ in pairs]
    names = [tuple(first[[*by]].iloc[0]) for first, _ in pairs]
    shared = runs[runs["setting"].isin([first["setting"].iloc[0] for first, _ in pairs]) & runs[metric].notna()]
    whole = all(each[metric].notna().all() for pair in pairs for each in pair)
    fit = mixed_means(shared[metric], shared["cell"], shared["block"]) if whole and min(counts, default=0) > 1 else None
    if fit is None:
        unknown = [Interval(math.nan, math.nan, math.nan, n, math.nan) for n in (sum(counts), len(counts), *counts)]
        return Pooled(unknown[0], unknown[1], 0.0, dict(zip(names, unknown[2:], strict=True)))
    cells = np.unique(shared["cell"])
    contrasts = np.array([1.0 * (cells == a["cell"].iloc[0]) - (cells == b["cell"].iloc[0]) for a, b in pairs])
    gains, seeds = contrasts @ fit.means, contrasts @ fit.covariance @ contrasts.T
    right = [_item_gains(pair, metric) for pair in pairs]
    known = [each for each in right if each is not None]
    items = np.zeros_like(seeds)
    if len(known) == len(right):
        items = item_covariance(known, [first[TEST_SET].iloc[0] for first, _ in pairs])
    errors = np.sqrt(seeds.diagonal() + np.maximum(items.diagonal(), 0))
    from_seeds, from_items = float(seeds.mean()), max(0.0, float(items.mean()))  # variances of the mean gain
    # Satterthwaite's degrees of freedom; there are so many items that their variance counts as known
    degrees = fit.degrees * ((from_seeds + from_items) / from_seeds) ** 2
    rows = zip(names, gains.tolist(), errors.tolist(), counts, strict=True)
    settings = {name: interval_of(gain, error, fit.degrees, count) for name, gain, error, count in rows}
    effect = interval_of(float(gains.mean()), math.sqrt(from_seeds + from_items), degrees, sum(counts))
    return Pooled(effect, population_mean(gains, errors), math.sqrt(from_items), settings)


def mixed_means(scores: ArrayLike, cells: ArrayLike, blocks: ArrayLike) -> Means | None:
    """REML's cell means with a random effect of each block (a seed of a setting); None without an error to estimate.

    Where REML finds no variance between blocks, which small samples often give, or does not converge, the blocks are
    fixed effects. With all arms in all blocks both fits have the paired test's error and degrees of freedom. Powell's
    method: of 360 small designs, statsmodels' own choice (BFGS) missed the optimum in 29 where it lies inside, Powell's
    in 1, by .3%.
    """
    return _fitted(*(tuple(np.asarray(each).tolist()) for each in (scores, cells, blocks)))


@lru_cache(maxsize=32)
def _fitted(scores: tuple[float, ...], cells: tuple[object, ...], blocks: tuple[object, ...]) -> Means | None:
    """`mixed_means`; the arms of a study share one fit, which takes a fifth of a second."""
    from statsmodels.regression.linear_model import OLS  # these imports take a second
    from statsmodels.regression.mixed_linear_model import MixedLM

    score, block = np.array(scores), np.array(blocks)
    of_cell, of_block = (np.equal.outer(each, np.unique(each)).astype(float) for each in (np.array(cells), block))
    both = np.column_stack([of_cell, of_block])
    degrees = len(score) - int(np.linalg.matrix_rank(both))
    middle, scale = float(score.mean()), float(score.std())
    if degrees < 1 or not scale > 0:
        return None
    with warnings.catch_warnings():  # of columns that add up to others, of steps on the way, and of a variance at 0
        warnings.simplefilter("ignore")
        fixed = OLS((score - middle) / scale, both).fit()
        if fixed.ssr <= ROUNDING:
            return None
        found = (fixed.params, fixed.cov_params())
        with contextlib.suppress(np.linalg.LinAlgError):
            mixed = MixedLM((score - middle) / scale, of_cell, block).fit(reml=True, method=["powell"])
            if mixed.converged and mixed.cov_re[0, 0] > NO_VARIANCE * mixed.scale:
                found = (mixed.params, mixed.cov_params())
    means, covariance = found[0][: of_cell.shape[1]], found[1][: of_cell.shape[1], : of_cell.shape[1]]
    return Means(middle + scale * means, scale**2 * covariance, degrees)


def item_covariance(gains: Sequence[Array], sets: Sequence[object]) -> Array:
    """Covariance (settings, settings) of mean gains over test items: Cov of the items' effects / items.

    gains: of each setting, (seeds, items); sets: its test set. The crossed model: a gain = effect of the seed + effect
    of the item + rest. It is fitted by mean squares, so a variance may come out below 0. Settings with different test
    sets are independent.
    """
    found = np.zeros((len(gains), len(gains)))
    for row, own in enumerate(gains):
        for column, other in enumerate(gains):
            if sets[row] == sets[column]:
                found[row, column] = np.cov(own.mean(axis=0), other.mean(axis=0))[0, 1] / own.shape[1]
        rest = own - own.mean(axis=0) - own.mean(axis=1, keepdims=True) + own.mean()
        found[row, row] -= (rest**2).sum() / ((own.shape[0] - 1) * (own.shape[1] - 1)) / own.size
    return found


def pooled_ratios(ratios: Mapping[tuple[object, ...], ArrayLike]) -> Pooled:
    """The geometric mean over settings of ratios between paired runs, one for each seed, such as speed-ups.

    The settings share one error variance of the logarithms. No interval if a ratio is unknown (NaN).
    """
    logs = [np.log(np.asarray(values, dtype=float)) for values in ratios.values()]
    counts, means = np.array([len(each) for each in logs]), np.array([each.mean() for each in logs])
    degrees = int((counts - 1).sum())
    rest = sum(float(((each - each.mean()) ** 2).sum()) for each in logs)
    errors = np.sqrt(rest / degrees / counts) if degrees else np.full(len(logs), math.nan)
    rows = zip(ratios, means.tolist(), errors.tolist(), counts.tolist(), strict=True)
    settings = {name: _exp(interval_of(mean, error, degrees, count, null=0.0)) for name, mean, error, count in rows}
    error = float(np.sqrt((errors**2).sum())) / len(logs)
    effect = interval_of(float(means.mean()), error, degrees, int(counts.sum()))
    return Pooled(_exp(effect), _exp(population_mean(means, errors)), 0.0, settings)


def _exp(found: Interval) -> Interval:
    with np.errstate(over="ignore"):
        estimate, low, high = np.exp([found.estimate, found.low, found.high]).tolist()
    return Interval(estimate, low, high, found.n, found.p, found.degrees)


def population_mean(gains: Array, errors: Array) -> Interval:
    """The mean over a population of settings: random effects with Hartung and Knapp's interval of t(settings - 1).

    doi 10.1002/sim.1009; the variance between settings is Paule and Mandel's. Where the settings agree by more than
    their errors say, these errors count (Roever et al. 2015, doi 10.1186/s12874-015-0091-1). NaN ends for one setting.
    """
    from statsmodels.stats.meta_analysis import combine_effects

    if len(gains) < 2 or not np.isfinite(errors).all():
        return Interval(float(gains.mean()), math.nan, math.nan, len(gains), math.nan)
    if not errors.all():  # gains known exactly: their own spread alone
        return mean_interval(gains)
    with np.errstate(divide="ignore"):  # of a share of variance that is not used, where the gains are equal
        found = combine_effects(gains, errors**2, method_re="iterated", use_t=True)
    error = max(float(found.sd_eff_w_re_hksj), float(found.sd_eff_w_re))
    return interval_of(float(found.mean_effect_re), error, len(gains) - 1, len(gains))


def _pairs(runs: "pd.DataFrame", own: object, base: object, arm: str) -> list[Pair]:
    settings = [rows for _, rows in runs.sort_values("seed").groupby("setting")]
    both = [(rows[rows[arm] == own], rows[rows[arm] == base]) for rows in settings]
    return [pair for pair in both if all(map(len, pair))]


def _item_gains(pair: Pair, metric: str) -> "Array | None":
    """Right answers of one arm minus the other's, (seeds, items); None where they are not known or not paired."""
    first, second = pair
    texts = [each["correct"].fillna("") for each in pair] if "correct" in first else []
    if not texts or any((each == "").any() for each in texts) or [*first["seed"]] != [*second["seed"]]:
        return None
    right = [np.stack([unpacked(text) for text in each]).astype(float) for each in texts]
    scores = [each[metric].to_numpy(dtype=float) for each in pair]
    same = all(np.allclose(own.mean(axis=1), score, atol=1e-6) for own, score in zip(right, scores, strict=True))
    return right[0] - right[1] if same else None
