"""One curve for all widths: y = g(x - p log2 n) + noise, with a polynomial g of x, the log2 of λ, or of lr_A and lr_B.

p is the power of n as which g's optimum, and all else that g has, moves: by LoRA+'s Theorem 1 -1 for lr_A, 0 for lr_B
and 1 for λ. No width needs an optimum of its own inside what was tried, and g has no form of the theory's. The residual
beside that of separate polynomials says whether the widths have one curve.

N: cells, each the mean over the seeds of one arm; d: coordinates, 1 or 2.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy  # imported on first use: scipy.optimize takes a while to import

from loralab.studies.stats import Array, Interval, interval_of

__all__ = ["REACH", "Cells", "Curve", "lowest_place", "powers", "residual", "separate_residual", "shifts"]

REACH = 2.5
"""Powers are searched for from -REACH to REACH; an interval that ends there is unbounded."""
COARSE = 21  # starts for each coordinate
STEP = 0.05  # of the search for an interval's ends; the profile is smooth on this scale, as -1 and 0 lie 20 steps apart


@dataclass(frozen=True)
class Cells:
    """places: (N, d); widths: n, (N,); values: (N,). degree: of g; levels: whether each width has its own constant."""

    places: Array
    widths: Array
    values: Array
    degree: int
    levels: bool = False

    @cached_property
    def wide(self) -> Array:
        """log2 of n over the narrowest."""
        logs: Array = np.log2(self.widths / self.widths.min())
        return logs

    @cached_property
    def of_width(self) -> Array:
        """(N, widths): 1 where a cell is of the width."""
        return np.equal.outer(self.widths, np.unique(self.widths)).astype(float)

    def design(self, moved: Array) -> Array:
        """(N, terms) of the model at these places (N, d), with a constant for each width or one for all."""
        scaled = (moved - moved.mean(axis=0)) / np.maximum(moved.std(axis=0), 1e-9)
        constants = self.of_width if self.levels else np.ones((len(moved), 1))
        return np.column_stack([_terms(scaled, self.degree)[:, 1:], constants])

    def left(self, power: Array) -> Array:
        """(N,): what one curve leaves of the values, at these powers (d,)."""
        return _left(self.design(self.places - np.outer(self.wide, power)), self.values)

    def square(self, power: Array) -> float:
        rest = self.left(power)
        return float(rest @ rest)

    @cached_property
    def degrees(self) -> int:
        """Of freedom, where the powers are given."""
        return len(self.values) - int(np.linalg.matrix_rank(self.design(self.places)))


def residual(cells: Cells, power: Sequence[float]) -> float:
    """The standard deviation of the cells about one curve at these powers; NaN without a degree of freedom."""
    return math.sqrt(cells.square(np.array(power)) / cells.degrees) if cells.degrees > 0 else math.nan


def separate_residual(cells: Cells, degree: int) -> float:
    """The standard deviation of the cells about a polynomial of each width; NaN without a degree of freedom."""
    square, degrees = 0.0, 0
    for own in np.unique(cells.widths):
        ours = cells.widths == own
        design = _terms(cells.places[ours] - cells.places[ours].mean(axis=0), degree)
        rest = _left(design, cells.values[ours])
        square, degrees = square + float(rest @ rest), degrees + len(rest) - int(np.linalg.matrix_rank(design))
    return math.sqrt(square / degrees) if degrees > 0 else math.nan


def powers(cells: Cells, nulls: Sequence[float]) -> list[Interval]:
    """For each coordinate the power of n, with its profile interval, and the p-value of its null.

    The interval contains each power at which the best fit, over the other coordinate's, leaves at most (1 + t^2 / f)
    times the least sum of squares; f: degrees of freedom. n counts the cells. It is unbounded where g may be flat, as
    nothing moves then (an F test at 1%: the search for powers finds a shape in noise), and where the least sum of
    squares is at the end of the search.
    """
    best, n = _lowest(cells), len(cells.values)
    degrees = cells.degrees - len(best)
    if degrees < 1 or len(np.unique(cells.widths)) < 2:
        return [Interval(math.nan, math.nan, math.nan, n, math.nan)] * len(best)
    if _may_be_flat(cells, best, degrees) or np.abs(best).max() >= REACH - STEP:
        return [Interval(at, -math.inf, math.inf, n, math.nan, degrees) for at in best.tolist()]
    return [_profiled(cells, best, axis, null, degrees) for axis, null in enumerate(nulls)]


def shifts(cells: Cells) -> dict[float, list[Interval]]:
    """For each width but the narrowest, by how many doublings g lies to the right of the narrowest width's.

    One g and a free shift of each width and coordinate. Intervals of the linearised fit, since a profile of each would
    take minutes; NaN without a degree of freedom.
    """
    names, d = np.unique(cells.widths)[1:], cells.places.shape[1]

    def left(free: Array) -> Array:
        moved = cells.of_width[:, 1:] @ free.reshape(len(names), d)
        return _left(cells.design(cells.places - moved), cells.values)

    start = np.outer(np.log2(names / cells.widths.min()), _lowest(cells)).ravel()
    found = scipy.optimize.least_squares(left, start, method="trf", x_scale="jac")
    degrees = cells.degrees - len(start)
    errors = np.full(len(start), math.nan)
    if degrees > 0:
        errors = np.sqrt(np.linalg.pinv(found.jac.T @ found.jac).diagonal() * 2 * found.cost / degrees)
    n = len(cells.values)
    each = [interval_of(at, error, max(1, degrees), n) for at, error in zip(found.x.tolist(), errors, strict=True)]
    return {float(name): each[d * place : d * (place + 1)] for place, name in enumerate(names)}


def lowest_place(cells: Cells) -> Array:
    """(d,): where g is lowest, for the narrowest width, among the places of all cells carried there."""
    best = _lowest(cells)
    moved = cells.places - np.outer(cells.wide, best)
    design = cells.design(moved)
    fitted = design @ np.linalg.lstsq(design, cells.values)[0]
    constants = cells.of_width @ np.linalg.lstsq(cells.of_width, fitted)[0] if cells.levels else 0
    place: Array = moved[int(np.argmin(fitted - constants))]
    return place


@dataclass(frozen=True)
class Curve:
    """g of one coordinate at a given power, over x - p log2(n / narrowest).

    moved, aligned: (N,), the cells' places and values there, without what parts the widths' levels.
    """

    cells: Cells
    power: float

    @cached_property
    def moved(self) -> Array:
        return self.cells.places[:, 0] - self.cells.wide * self.power

    @cached_property
    def aligned(self) -> Array:
        constants = self._fit[0][self.cells.degree :]
        away: Array = self.cells.of_width @ (constants - constants.mean()) if self.cells.levels else 0 * self.moved
        return self.cells.values - away

    @cached_property
    def _fit(self) -> tuple[Array, Array]:
        """Coefficients, those of the constants last, and their covariance; NaN without a degree of freedom."""
        design = self.cells.design(self.moved[:, None])
        left = residual(self.cells, [self.power])
        solved, covariance = np.linalg.lstsq(design, self.cells.values)[0], np.linalg.pinv(design.T @ design)
        return np.asarray(solved, dtype=float), np.asarray(covariance * left**2, dtype=float)

    def _rising(self, x: Array) -> Array:
        """(x, degree): the terms without a constant, as `Cells.design` scales them."""
        return _terms(((x - self.moved.mean()) / self.moved.std())[:, None], self.cells.degree)[:, 1:]

    def _inside(self, x: Array) -> Array:
        inside: Array = (self.moved.min() - 1e-9 <= x) & (x <= self.moved.max() + 1e-9)
        return inside

    def __call__(self, x: Array) -> Array:
        """g at the widths' mean level; NaN outside the cells' range, of which a polynomial says nothing."""
        degree = self.cells.degree
        return np.where(self._inside(x), self._rising(x) @ self._fit[0][:degree] + self._fit[0][degree:].mean(), np.nan)

    def difference(self, high: float, low: float) -> Interval:
        """g(high) - g(low), with the fit's interval; NaN where one is outside the cells' range."""
        x, degree, n = np.array([high, low]), self.cells.degree, len(self.cells.values)
        if not self._inside(x).all() or self.cells.degrees < 1:
            return Interval(math.nan, math.nan, math.nan, n, math.nan)
        toward = self._rising(x).T @ [1.0, -1.0]
        error = math.sqrt(toward @ self._fit[1][:degree, :degree] @ toward)
        return interval_of(float(toward @ self._fit[0][:degree]), error, self.cells.degrees, n)


def _terms(x: Array, degree: int) -> Array:
    """(N, terms): the monomials of x (N, d) up to a total degree, the constant first."""
    columns = [np.ones(len(x))]
    for order in range(1, degree + 1):
        which = itertools.combinations_with_replacement(range(x.shape[1]), order)
        columns += [x[:, each].prod(axis=1) for each in which]
    return np.column_stack(columns)


def _left(design: Array, values: Array) -> Array:
    rest: Array = values - design @ np.linalg.lstsq(design, values)[0]
    return rest


def _lowest(cells: Cells) -> Array:
    """The powers (d,) of the least sum of squares: from the best of a coarse grid."""
    d = cells.places.shape[1]
    grid = np.array(list(itertools.product(np.linspace(-REACH, REACH, COARSE), repeat=d)))
    start = grid[int(np.argmin([cells.square(power) for power in grid]))]
    found = scipy.optimize.least_squares(cells.left, start, bounds=(-REACH, REACH))
    best: Array = found.x
    return best


def _may_be_flat(cells: Cells, best: Array, degrees: int) -> bool:
    constants = cells.of_width if cells.levels else np.ones((len(cells.values), 1))
    rest, least = _left(constants, cells.values), cells.square(best)
    terms = len(cells.values) - degrees - constants.shape[1]
    more = (float(rest @ rest) - least) / terms
    return bool(least > 0 and scipy.stats.f.sf(more / (least / degrees), terms, degrees) > 0.01)


def _profiled(cells: Cells, best: Array, axis: int, null: float, degrees: int) -> Interval:
    least = cells.square(best)
    if least <= 1e-24 * float(cells.values @ cells.values):  # a perfect fit
        return interval_of(float(best[axis]), 0.0, degrees, len(cells.values), null=null)
    t2 = float(scipy.stats.t.ppf(0.975, degrees)) ** 2

    def steeper(power: float, others: Array) -> tuple[float, Array]:
        """t^2 of a power, and the best powers of all coordinates there."""

        def left(free: Array) -> Array:
            return cells.left(np.insert(free, axis, power))

        if len(others):
            others = scipy.optimize.least_squares(left, others).x
        rest = left(others)
        return (float(rest @ rest) - least) / (least / degrees), others

    ends = []
    for sign in (-1, 1):
        power, others, t_there = float(best[axis]), np.delete(best, axis), 0.0
        while t_there <= t2 and abs(power) < REACH:
            before, t_before = power, t_there
            power = float(np.clip(power + sign * STEP, -REACH, REACH))
            t_there, others = steeper(power, others)
        if t_there <= t2:
            ends.append(sign * math.inf)
        else:  # t grows linearly
            share = (math.sqrt(t2) - math.sqrt(max(0, t_before))) / (math.sqrt(t_there) - math.sqrt(max(0, t_before)))
            ends.append(before + share * (power - before))
    t_null = math.sqrt(max(0.0, steeper(null, np.delete(best, axis))[0]))
    p = math.nan if ends == [-math.inf, math.inf] else 2 * float(scipy.stats.t.sf(t_null, degrees))
    return Interval(float(best[axis]), ends[0], ends[1], len(cells.values), p, degrees)
