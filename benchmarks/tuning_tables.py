"""Tables of runs as a world to tune in: the smoothed loss of every pair of rates, with the seed noise of real runs."""

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

SHARES = tuple(n / 10 for n in range(1, 11))
BANDWIDTH = 1.0  # of the local quadratic fit, in doublings: the grid's spacing
LATTICE = 1 / 16  # doublings
GOOD = 0.15  # cells whose final loss is this close to the lowest lend their residuals as seed noise
MARGIN = 0.3  # the fit is to log(loss - low), low being this share below the lowest loss: steep sides are straighter

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Table:
    """Curves of one setting: (log2 lr_A, log2 lr_B) -> validation loss at SHARES.

    The true loss of a pair is a local quadratic fit to the cells around it, weighted by a Gaussian of BANDWIDTH, so
    that pairs off the grid have one too and the noise of a single cell is not taken for a truth. What the fit leaves of
    the good cells is the seed noise: a drawn run is the truth plus the whole residual curve of a good cell chosen at
    random, so that noise at 50% and at the end go together as they do in real runs. It is scaled by the share that the
    pair has learned of what the best has, for runs that learn nothing differ little.
    """

    name: str
    places: Array  # (cells, 2)
    curves: Array  # (cells, shares)

    @cached_property
    def dead(self) -> NDArray[np.bool_]:
        """Cells that learned less than half of what one did that has both rates lower or equal."""
        top = float(self.curves[:, -1].max())
        learned = top - self.curves[:, -1]
        below = (self.places[:, None] >= self.places[None]).all(axis=2)  # [cell, other]
        found: NDArray[np.bool_] = learned < np.where(below, learned, 0).max(axis=1) / 2
        return found

    def truth(self, a: float, b: float) -> Array:
        """The smooth curve at a pair, to LATTICE; outside the table, that of the nearest pair inside."""
        low, high = self.places.min(axis=0), self.places.max(axis=0)
        at = np.round((np.clip((a, b), low, high) - low) / LATTICE).astype(int)
        key = (int(at[0]), int(at[1]))
        if key not in self._smooth:
            self._smooth[key] = self._fitted(*(low + LATTICE * at))[0]
        return self._smooth[key]

    _smooth: dict[tuple[int, int], Array] = field(default_factory=dict)

    def _fitted(self, a: float, b: float) -> tuple[Array, Array]:
        """The smooth curve at a pair, and the weight of each cell in it."""
        off = self.places - (a, b)
        weight = np.exp(-(off**2).sum(1) / (2 * BANDWIDTH**2))
        of_cell = np.zeros(len(self.places))
        if self._is_dead(a, b):
            of_cell[self.dead] = weight[self.dead] / weight[self.dead].sum()
            return of_cell[self.dead] @ self.curves[self.dead], of_cell
        rows = ~self.dead
        x, y = off[rows].T
        design = np.column_stack([np.ones_like(x), x, y, x * x, x * y, y * y])
        root = np.sqrt(weight[rows])[:, None]
        of_cell[rows] = np.linalg.pinv(design * root)[0] * root[:, 0]
        low = (1 - MARGIN) * self.curves[rows].min(axis=0)
        return low + np.exp(of_cell[rows] @ np.log(self.curves[rows] - low)), of_cell

    def _is_dead(self, a: float, b: float) -> bool:
        """Whether half of the cells around a pair are dead, weighted as in linear interpolation."""
        near = np.prod(np.clip(1 - np.abs(self.places - (a, b)), 0, 1), axis=1)
        return bool(near @ self.dead >= near.sum() / 2)

    @cached_property
    def residuals(self) -> Array:
        """Residual curves of the good cells, scaled up by what the fit took of them: (cells, shares)."""
        good = np.flatnonzero(~self.dead & (self.curves[:, -1] < np.min(self.curves[~self.dead, -1]) + GOOD))
        found = []
        for cell in good:
            smooth, weights = self._fitted(*self.places[cell])
            left = 1 - 2 * weights[cell] + weights @ weights  # variance of a residual in that of a cell
            found.append((self.curves[cell] - smooth) / math.sqrt(max(left, 0.05)))
        return np.array(found)

    @cached_property
    def noise(self) -> float:
        """Standard deviation of a final loss."""
        return float(np.sqrt(np.mean(self.residuals[:, -1] ** 2)))

    @cached_property
    def _range(self) -> tuple[Array, Array]:
        cells = np.array([self.truth(*place) for place in self.places])
        return cells.min(axis=0), cells.max(axis=0)

    def learned(self, smooth: Array) -> Array:
        """The share of what the best has learned, 0 to 1, at each share of the steps."""
        low, high = self._range
        share: Array = np.clip((high - smooth) / (high - low), 0, 1)
        return share

    @cached_property
    def lowest(self) -> float:
        """The lowest true loss of the grid's cells."""
        return min(float(self.truth(*place)[-1]) for place in self.places)


class Draw:
    """One world: a run of a pair and a seed always has the same curve in it."""

    def __init__(self, table: Table, number: int) -> None:
        self.table, self.number = table, number

    def curve(self, a: float, b: float, seed: int) -> Array:
        """The losses at SHARES."""
        rng = np.random.default_rng([self.number, seed, round(1e6 * a + 1e8), round(1e6 * b + 1e8)])
        smooth, residuals = self.table.truth(a, b), self.table.residuals
        drawn: Array = smooth + self.table.learned(smooth) * residuals[rng.integers(len(residuals))]
        return drawn

    def regret(self, a: float, b: float) -> float:
        """The true loss of a pair minus the lowest of the grid's cells."""
        return float(self.table.truth(a, b)[-1]) - self.table.lowest
