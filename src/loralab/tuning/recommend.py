"""The best rate from a few final losses, given what earlier losses said; how sure it is; and which λ is preferred."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TypeVar

from loralab.tuning.parabola import Parabola

__all__ = ["NOISE", "between_seeds", "preferred", "settled"]

# The standard deviation of a good run's final loss between seeds: .009 to .017 nats on TREC, .010 on Rotten Tomatoes,
# .024 on IMDb (runs within .05 nats of the best, 2 or 3 seeds each). Two seeds alone say little: it weighs as much as
# NOISE_SEEDS differences of seeds.
NOISE, NOISE_SEEDS = 0.013, 4
# Error of the vertex of losses at half of the steps, in steps of half a doubling: for TREC at 100 steps it is known to
# .3 of them and not biased; at 800 steps it is 1.5 to 2.5 too high.
EARLY = 1.0
SURE = 1.0  # standard errors by which another λ must have the lower final loss

Place = TypeVar("Place")


def between_seeds(groups: Sequence[Sequence[float]]) -> tuple[float, bool]:
    """The standard deviation of a final loss between seeds, pooled with NOISE; whether any seed was repeated."""
    squares = sum((loss - fmean(losses)) ** 2 for losses in groups for loss in losses)
    degrees = sum(len(losses) - 1 for losses in groups if losses)
    return math.sqrt((squares + NOISE_SEEDS * NOISE**2) / (degrees + NOISE_SEEDS)), degrees > 0


def settled(early: Parabola, finals: Sequence[tuple[float, float]], noise: float) -> Parabola:
    """The parabola of the final losses, with the curvature of `early`, whose vertex is known to EARLY.

    finals: (x, final loss), x in steps of half a doubling, one or more. With a known curvature k the losses minus k x^2
    are a line of slope -2 k v, so that two rates already tell the vertex v, to noise / (2 k sqrt(sum of squares of x)).
    """
    places = [x for x, _ in finals]
    middle, k = fmean(places), early.curvature
    spread = sum((x - middle) ** 2 for x in places)
    slope_spread = sum((x - middle) * (loss - k * x * x) for x, loss in finals)  # slope times spread
    # Precision-weighted mean of the vertex of the finals and of `early`, both times 4 k^2 noise^2.
    weight, own = (noise / EARLY) ** 2, 4 * k * k * spread
    at = (weight * early.at - 2 * k * slope_spread) / (weight + own)
    return Parabola(at, k, fmean(loss - k * (x - at) ** 2 for x, loss in finals))


def preferred(finals: Mapping[Place, Sequence[float]], noise: float) -> Place:
    """The first place, or a later one whose mean final loss is lower by more than SURE standard errors."""
    places = list(finals)
    best = places[0]
    for other in places[1:]:
        error = noise * math.sqrt(1 / len(finals[best]) + 1 / len(finals[other]))
        if fmean(finals[other]) < fmean(finals[best]) - SURE * error:
            best = other
    return best
