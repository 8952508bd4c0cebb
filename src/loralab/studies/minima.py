"""Minimum of a fitted parabola in one variable or two, mostly with an interval: pure functions over arrays."""

import math
from dataclasses import dataclass, replace

import numpy as np
import scipy  # imported on first use: scipy.stats takes half a second to import
from numpy.typing import ArrayLike

from loralab.studies.stats import ROUNDING, Array, as_pairs, check_level, largest
from loralab.tuning.parabola import parabola

__all__ = ["NOWHERE", "Minimum", "quadratic_minimum", "seed_minimum", "surface_minimum", "vertex"]

REACH = 6.0  # half-width of the search for a surface's minimum, in standard deviations of the cells' coordinates
FINE = 301  # grid points of that search per coordinate


@dataclass(frozen=True)
class Minimum:
    """The minimum of a fitted parabola, in x's units; the second derivative; whether it lies within the given x.

    p: two-sided, of the hypothesis that the minimum is at `null`, from the slope there; nan if the interval is the
    whole line.
    """

    at: float
    low: float
    high: float
    curvature: float
    interior: bool
    p: float


NOWHERE = Minimum(math.nan, -math.inf, math.inf, math.nan, False, math.nan)
"""Not identified: no parabola that curves upward."""


def quadratic_minimum(
    x: ArrayLike, y: ArrayLike, *, blocks: ArrayLike | None = None, null: float = 0.0, level: float = 0.95
) -> Minimum:
    """-b / 2a of the least-squares y = a x^2 + b x + c, with Fieller's interval (Fieller 1954).

    The interval contains each m for which 2am + b = 0 is not rejected: (2am + b)^2 <= t^2 Var(2am + b), with t of n - 3
    degrees of freedom. It is (-inf, inf) if a is not significantly positive. `at` is nan for fewer than four points,
    fewer than three distinct x, or a parabola that does not curve upward. blocks: a label per point, such as its seed.
    Each block has its own c, which costs a degree of freedom (subtracting block means from y would ignore it).
    """
    place, value = as_pairs(x, y)
    check_level(level)
    if len(np.unique(place)) < 3:
        return NOWHERE
    unit = (place - place.mean()) / place.std()
    labels = np.zeros(len(place)) if blocks is None else np.asarray(blocks)
    design = np.column_stack([unit**2, unit, labels[:, None] == np.unique(labels)])
    degrees = len(place) - design.shape[1]
    fit, _, rank, _ = np.linalg.lstsq(design, value)
    if degrees < 1 or rank < design.shape[1]:
        return NOWHERE
    covariance = np.linalg.inv(design.T @ design) * np.sum((value - design @ fit) ** 2) / degrees
    line = _Line(float(fit[0]), float(fit[1]), covariance[:2, :2], degrees)
    return _fieller(line, place, ROUNDING * largest(value), null, level)


def seed_minimum(x: ArrayLike, losses: ArrayLike, *, null: float = 0.0, level: float = 0.95) -> Minimum:
    """The minimum of the parabola through the mean losses, with Fieller's interval from the spread between seeds.

    losses: (seeds, places). Each seed has its own least-squares parabola; the interval contains each m at which the
    mean of the seeds' slopes 2am + b is not rejected by Student's t of seeds - 1 degrees of freedom. What a parabola
    misses in every seed alike, such as a curve that is none, does not widen it. `at` is nan where it is in
    `quadratic_minimum`, for one seed, and where a loss is nan.
    """
    place, value = np.asarray(x, dtype=float), np.asarray(losses, dtype=float)
    check_level(level)
    if len(value) < 2 or len(np.unique(place)) < 3 or not np.isfinite(value).all():
        return NOWHERE
    unit = (place - place.mean()) / place.std()
    curves = np.linalg.lstsq(np.column_stack([unit**2, unit, np.ones_like(unit)]), value.T)[0][:2]
    a, b = curves.mean(axis=1).tolist()
    line = _Line(a, b, np.cov(curves) / len(value), len(value) - 1)
    return _fieller(line, place, ROUNDING * largest(value), null, level)


@dataclass(frozen=True)
class _Line:
    """The slope 2au + b of a parabola in units u of x's standard deviation, with the covariance of a and b."""

    a: float
    b: float
    covariance: Array
    degrees: int


def _fieller(line: _Line, place: Array, flat: float, null: float, level: float) -> Minimum:
    """Where the line is 0; flat: a parabola with an `a` up to this does not curve."""
    middle, scale = place.mean(), place.std()
    a, b, covariance = line.a, line.b, line.covariance
    curvature = 2 * a / scale**2
    if a <= flat:
        return replace(NOWHERE, curvature=float(curvature))
    t2 = float(scipy.stats.t.ppf((1 + level) / 2, line.degrees)) ** 2
    square = 4 * (a**2 - t2 * covariance[0, 0])  # square m^2 + linear m + constant <= 0
    linear = 4 * (a * b - t2 * covariance[0, 1])
    constant = b**2 - t2 * covariance[1, 1]
    at = middle - scale * b / (2 * a)
    inside = bool(place.min() < at < place.max())
    if square <= 0:
        return Minimum(float(at), -math.inf, math.inf, float(curvature), inside, math.nan)
    root = math.sqrt(max(0.0, linear**2 - 4 * square * constant))
    low, high = (middle + scale * (-linear + sign * root) / (2 * square) for sign in (-1, 1))
    toward = np.array([2 * (null - middle) / scale, 1.0])  # the slope at null is toward @ (a, b)
    spread = math.sqrt(toward @ covariance @ toward)
    slope = float(abs(toward @ [a, b]))
    p = 2 * float(scipy.stats.t.sf(slope / spread, line.degrees)) if spread > 0 else float(slope <= ROUNDING)
    return Minimum(float(at), float(low), float(high), float(curvature), inside, p)


def vertex(x: ArrayLike, y: ArrayLike) -> float:
    """The minimum of the parabola through the lowest point and its neighbours on both sides.

    NaN if the lowest point is an end, or a neighbour's y is not finite (a run that diverged). For one run per x, which
    `quadratic_minimum` gives no interval for. x: distinct.
    """
    order = np.argsort(np.asarray(x, dtype=float))
    place, value = np.asarray(x, dtype=float)[order], np.asarray(y, dtype=float)[order]
    if np.isnan(value).all():
        return math.nan
    lowest = int(np.nanargmin(value))
    if lowest in (0, len(place) - 1) or not np.isfinite(value[lowest - 1 : lowest + 2]).all():
        return math.nan
    three = slice(lowest - 1, lowest + 2)
    found = parabola(dict(zip(place[three].tolist(), value[three].tolist(), strict=True)))
    return math.nan if found is None else found.at


def surface_minimum(places: Array, values: Array) -> tuple[Minimum, Minimum]:
    """Both coordinates of -H^-1 g of the least-squares x^T H x / 2 + g x + c, with 95% profile intervals.

    An interval contains each value of one coordinate for which g + H x = 0 is not rejected (t^2 of n - 6 degrees of
    freedom) at some value of the other: `quadratic_minimum` in the plane. An end at the search's limit is infinite.
    """
    degrees = len(values) - 6
    if degrees < 1 or min(len(np.unique(column)) for column in places.T) < 3:
        return NOWHERE, NOWHERE
    middle, scale = places.mean(axis=0), places.std(axis=0)
    x, y = ((places - middle) / scale).T
    design = np.column_stack([x * x / 2, x * y, y * y / 2, x, y, np.ones_like(x)])
    fit, _, rank, _ = np.linalg.lstsq(design, values)
    H = np.array([[fit[0], fit[1]], [fit[1], fit[2]]])
    if rank < 6 or np.linalg.eigvalsh(H)[0] <= 1e-12 * np.abs(values).max():
        return NOWHERE, NOWHERE
    at = -np.linalg.solve(H, fit[3:5])
    covariance = np.linalg.inv(design.T @ design) * np.sum((values - design @ fit) ** 2) / degrees
    ends = _not_rejected(fit[:5], covariance[:5, :5], at, float(scipy.stats.t.ppf(0.975, degrees)) ** 2)
    lowest, ratio = middle + scale * at, places[:, 1] - places[:, 0]
    inside = bool(((places.min(axis=0) < lowest) & (lowest < places.max(axis=0))).all())
    inside &= bool(ratio.min() <= lowest[1] - lowest[0] <= ratio.max())
    found = []
    for axis in (0, 1):
        low, high = (middle[axis] + scale[axis] * ends[axis]).tolist()
        found.append(Minimum(float(lowest[axis]), low, high, float(H[axis, axis] / scale[axis] ** 2), inside, np.nan))
    return found[0], found[1]


def _not_rejected(fit: Array, covariance: Array, at: Array, t2: float) -> Array:
    """For each coordinate the range of values at which the slope can be 0: (g + H x)^T V^-1 (g + H x) <= t2.

    Searches a grid of x around `at` and narrows it to the remaining range three times; fit: the entries of H and g.
    """
    ends = np.array([[-REACH, REACH]] * 2)
    for _ in range(3):
        each = [np.linspace(low, high, FINE) for low, high in ends]
        p, q = np.meshgrid(*each, indexing="ij")
        zero, one = np.zeros_like(p), np.ones_like(p)
        toward = np.array([[p, q, zero, one, zero], [zero, p, q, zero, one]])  # this matrix times fit is g + H x
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
