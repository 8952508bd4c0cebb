"""The parabola through three points: its vertex, its curvature, and none where it does not curve upward."""

import pytest

from loralab.tuning.parabola import parabola


@pytest.mark.parametrize("places", [(-2.0, 0.0, 2.0), (-2.3, -0.1, 1.7), (5.0, 1.0, 2.0)])
def test_a_parabola_is_found_from_any_three_of_its_points(places: tuple[float, ...]) -> None:
    found = parabola({x: 0.37 + 0.011 * (x - 0.4) ** 2 for x in places})
    assert found is not None
    assert tuple(found) == pytest.approx((0.4, 0.011, 0.37))


@pytest.mark.parametrize("losses", [(0.4, 0.4, 0.4), (0.4, 0.5, 0.6), (0.4, 0.5, 0.4)])
def test_what_does_not_curve_upward_has_no_vertex(losses: tuple[float, ...]) -> None:
    assert parabola(dict(zip((-2.0, 0.0, 2.0), losses, strict=True))) is None


def test_the_loss_has_risen_by_the_rise_at_the_half_width() -> None:
    found = parabola({-2.0: 1.0, 0.0: 0.0, 2.0: 1.0})
    assert found is not None
    assert found.half_width(0.25) == pytest.approx(1.0)
