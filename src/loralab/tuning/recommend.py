"""Which of the runs that ended is recommended, and which rates are within noise of it."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TypeVar

from loralab.tuning.parabola import Parabola

__all__ = ["NOISE", "between_seeds", "plateau", "preferred"]

# The standard deviation of a good run's final loss between seeds: .009 to .017 nats on TREC, .010 on Rotten Tomatoes,
# .024 on IMDb (runs within .05 nats of the best, 2 or 3 seeds each). Two seeds alone say little: it weighs as much as
# NOISE_SEEDS differences of seeds.
NOISE, NOISE_SEEDS = 0.013, 4
# Standard errors by which another candidate must have the lower final loss. On curves of TREC the vertex of the probes
# is known to .12 doublings, while the losses of two neighbouring candidates tell it to .45.
SURE = 1.0

Place = TypeVar("Place")


def between_seeds(groups: Sequence[Sequence[float]]) -> tuple[float, bool]:
    """The standard deviation of a final loss between seeds, pooled with NOISE; whether any seed was repeated."""
    squares = sum((loss - fmean(losses)) ** 2 for losses in groups for loss in losses)
    degrees = sum(len(losses) - 1 for losses in groups)
    return math.sqrt((squares + NOISE_SEEDS * NOISE**2) / (degrees + NOISE_SEEDS)), degrees > 0


def preferred(finals: Mapping[Place, Sequence[float]], noise: float) -> Place:
    """The first place, or a later one whose mean final loss is lower by more than SURE standard errors."""
    places = list(finals)
    best = places[0]
    for other in places[1:]:
        error = noise * math.sqrt(1 / len(finals[best]) + 1 / len(finals[other]))
        if fmean(finals[other]) < fmean(finals[best]) - SURE * error:
            best = other
    return best


def plateau(fit: Parabola, final: float, noise: float) -> tuple[float, float]:
    """The range of x whose final loss is within noise of the lowest.

    fit: of losses before the end, in x. Final losses are taken as proportional to them: `final` is the lowest one.
    """
    half = fit.half_width(noise * fit.lowest / final)
    return fit.at - half, fit.at + half
