"""Points of a run that a setting gives as a share of its steps (below 1) or as a number of steps.

A point between two steps is the nearer one; half-way, the later one, so that a pause at .3 and every third of the
evaluations at .1 are one step.
"""

import math

__all__ = ["evaluations", "is_due", "pause_step"]

# The rounding errors of a product of a share and a number of steps are far below it, and every true fraction above.
ROUNDING = 1e-9


def _nearest(point: float) -> int:
    return math.floor(point + 0.5 + ROUNDING)


def _interval(every: float, steps: int) -> float:
    return max(1.0, every * steps) if every < 1 else every


def is_due(step: int, every: float, steps: int) -> bool:
    """Whether `step`, from 1 to `steps`, is one of those of an interval, or the last one.

    every: the interval, below 1 as a share of the steps; at .1 ten steps are due, or all of fewer than ten.
    """
    interval = _interval(every, steps)
    return step == steps or step == _nearest(round(step / interval) * interval)


def evaluations(every: float, steps: int) -> int:
    """How many steps are due."""
    return math.ceil((steps - 0.5) / _interval(every, steps) - ROUNDING)


def pause_step(pause_at: float | None, steps: int) -> int:
    """The step after which a run of `steps` pauses, at least 1; `steps` where it does not."""
    if pause_at is None:
        return steps
    return min(steps, max(1, _nearest(pause_at * steps)) if pause_at < 1 else int(pause_at))
