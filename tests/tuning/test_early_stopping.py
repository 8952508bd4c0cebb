"""When a run is stopped, and when it has learned nothing: curves as measured on TREC."""

import math
from typing import Literal

import pytest

from loralab.tuning.early_stopping import collapsed, learned
from loralab.tuning.trial import Observed

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)
GOOD = (1.69, 1.33, 0.93, 0.66, 0.54)
SLOW = (1.67, 1.65, 1.62, 1.55, 1.46)
DEAD = (1.75, 1.67, 1.67, 1.64, 1.66)


def observed(losses: tuple[float, ...], status: Literal["paused", "diverged"] = "paused") -> Observed:
    return Observed((), status, tuple(zip(SHARES, losses, strict=False)))


def test_a_run_that_learned_less_than_half_of_a_lower_rates_has_collapsed() -> None:
    assert collapsed(observed(DEAD), [observed(GOOD)], 0.2)
    assert not collapsed(observed(GOOD), [observed(SLOW)], 0.2)


def test_no_run_is_stopped_without_a_lower_rate_that_learned() -> None:
    assert not collapsed(observed(DEAD), [], 0.2)
    assert not collapsed(observed(DEAD), [observed(DEAD), observed(SLOW)], 0.2)


def test_the_scale_of_the_loss_does_not_matter() -> None:
    def scaled(losses: tuple[float, ...]) -> Observed:
        return observed(tuple(100 * loss for loss in losses))

    assert collapsed(scaled(DEAD), [scaled(GOOD)], 0.2)
    assert not collapsed(scaled(GOOD), [scaled(GOOD)], 0.2)


@pytest.mark.parametrize("run", [observed(GOOD, "diverged"), observed((1.7, math.inf)), observed(())])
def test_what_diverged_or_has_no_loss_has_collapsed(run: Observed) -> None:
    assert collapsed(run, [], 0.2)
    assert not collapsed(observed(GOOD), [run], 0.2)


def test_a_run_that_falls_from_a_peak_to_the_trivial_loss_has_not_learned() -> None:
    assert not learned(observed(DEAD), 0.2, 0.5)
    assert learned(observed(SLOW), 0.2, 0.5)
    assert learned(observed(GOOD), 0.2, 0.5)
