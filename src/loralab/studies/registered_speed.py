"""Speed-up c of one training curve over another: other(t) = base(c t), fitted over 30 to 90% of the base's gain.

A single crossing uses one noisy point of a curve. Registration takes the mean of log(t_base / t_other) over all levels
of the band: the least-squares shift of one curve against the other in log time.
"""

import math
from collections.abc import Sequence

import numpy as np
import scipy  # imported on first use: scipy.optimize takes a while to import

from loralab.studies.stats import Array, Interval, ratio_interval

__all__ = ["BAND", "registered_speedup", "speedups", "times_at"]

BAND = np.linspace(0.3, 0.9, 13)
"""Shares of the gain. Below, the start is a few noisy points; above, a curve is so flat that noise decides."""
FEWEST = 7  # levels that both curves of a pair pass, of 13
Curve = Sequence[tuple[float, float]]
"""(time, value), ascending in time: steps, seconds, or shares of the steps (loralab.studies.thinned_curves.curve)."""


def registered_speedup(base: Sequence[Curve], other: Sequence[Curve], *, start: float) -> Interval:
    """The geometric mean of `speedups`, with `ratio_interval`; above 1: `other` is faster."""
    found = speedups(base, other, start=start)
    if not found or math.isnan(found[0]):
        return Interval(math.nan, math.nan, math.nan, len(found), math.nan)
    return ratio_interval(found, np.ones(len(found)))


def speedups(base: Sequence[Curve], other: Sequence[Curve], *, start: float) -> list[float]:
    """The speed-up of each pair of curves, which is a seed.

    start: the value before training. The gain goes from there to the mean last value of the base, and may fall (a loss)
    or rise. A level counts if both curves of a pair pass it, since the model then says the same at each level. All are
    NaN if a pair has fewer than FEWEST of those, as where a run diverges or gains little.
    """
    if len(base) != len(other):
        raise ValueError(f"base has {len(base)} curves and other has {len(other)}; they must be pairs")
    ends = [curve[-1][1] for curve in base if curve]
    unknown = [math.nan] * len(base)
    if len(ends) < max(1, len(base)):
        return unknown
    gain = float(np.mean(ends)) - start
    if not math.isfinite(gain) or gain == 0:
        return unknown
    found = []
    for pair in zip(base, other, strict=True):
        first, second = (times_at(BAND, curve, start=start, gain=gain) for curve in pair)
        both = np.log(first / second)
        passed = both[~np.isnan(both)]
        if len(passed) < FEWEST:
            return unknown
        found.append(math.exp(float(passed.mean())))
    return found


def times_at(levels: Array, curve: Curve, *, start: float, gain: float) -> Array:
    """When a curve passes each share of the gain; NaN for a share below its first point or above its last.

    The curve is made monotone by isotonic regression, where each flat piece counts as its middle, and is linear between
    its points.
    """
    points = np.array([point for point in curve if math.isfinite(point[1])], dtype=float).reshape(-1, 2)
    if len(points) < 2:
        return np.full(len(levels), math.nan)
    rising = scipy.optimize.isotonic_regression((points[:, 1] - start) / gain).x
    shares, piece = np.unique(rising, return_inverse=True)
    middles = np.bincount(piece, points[:, 0]) / np.bincount(piece)
    found: Array = np.interp(levels, shares, middles, left=math.nan, right=math.nan)
    return found
