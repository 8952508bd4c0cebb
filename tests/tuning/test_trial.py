"""Settings are keys in one order, and a run's loss at a share is the last one known by then."""

import math

import pytest

from loralab.tuning.trial import Observed, settings_of

CURVE = ((0.1, 1.5), (0.2, 1.2), (0.30000000000000004, 0.9))


def test_equal_values_are_equal_settings_in_any_order() -> None:
    assert settings_of({"seed": 0, "optim.lr": 1e-3}) == settings_of({"optim.lr": 1e-3, "seed": 0})


@pytest.mark.parametrize(("share", "loss"), [(0.05, math.inf), (0.1, 1.5), (0.25, 1.2), (0.3, 0.9), (1.0, 0.9)])
def test_the_loss_at_a_share_is_the_last_before_it_to_rounding(share: float, loss: float) -> None:
    assert Observed((), "paused", CURVE).loss_at(share) == loss


def test_a_run_without_a_future_has_an_infinite_loss() -> None:
    for status in ("diverged", "failed"):
        assert Observed((), status, CURVE).loss_at(0.2) == math.inf


def test_a_run_has_reached_the_last_point_of_its_curve() -> None:
    assert Observed((), "paused", CURVE).reached == pytest.approx(0.3)
    assert Observed((), "failed", ()).reached == 0
