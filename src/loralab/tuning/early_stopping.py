"""A run has collapsed if at a share of its steps it has learned less than half of what a lower rate has."""

import math
from collections.abc import Iterable

from loralab.tuning.trial import Observed

__all__ = ["collapsed", "learned"]

ENOUGH = 0.05  # of its loss: what a lower rate must have learned before another is measured by it
LEARNED = 0.01  # TREC, from 20 to 50% of the steps: .004 where the rate is far too high, .02 at a 32nd of the best


def collapsed(run: Observed, lower: Iterable[Observed], share: float) -> bool:
    """Whether `run` is to be stopped at `share` of its steps, given runs at lower rates of the same settings.

    What a lower rate has learned is the fall of its loss from the highest point of its curve, so that the scale of the
    loss does not matter. A run is never measured by a higher rate, for early losses favour high rates.
    """
    loss = run.loss_at(share)
    if math.isinf(loss):
        return True
    for other in lower:
        at = other.loss_at(share)
        highest = max((value for when, value in other.curve if when <= share and math.isfinite(value)), default=0.0)
        if highest - at > ENOUGH * highest and loss - at > (highest - at) / 2:
            return True
    return False


def learned(run: Observed, since: float, until: float) -> bool:
    """Whether the loss fell by more than LEARNED of itself between two shares of the steps.

    A rate far too high ends early at the loss of the labels' frequencies, and so do its neighbours, with differences
    that say nothing. The first losses are left out, for such a run comes down to that loss from above.
    """
    return run.loss_at(until) < (1 - LEARNED) * run.loss_at(since)
