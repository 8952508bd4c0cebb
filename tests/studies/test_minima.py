"""Fitted minima are exact for exact parabolas, and intervals have their nominal coverage."""

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from loralab.studies import minima
from loralab.studies.minima import quadratic_minimum, seed_minimum, vertex
from tests.studies.valleys import surface

NAN, INF = math.nan, math.inf
SIMULATED = 2000
WITHIN = 4 * math.sqrt(0.05 * 0.95 / SIMULATED)  # four standard errors of a coverage of 95%


def test_the_interval_of_a_minimum_ends_where_the_parabola_through_it_is_rejected() -> None:
    x, y = np.array([-3.0, -2.0, -1.0, 0.0, 3.0]), np.array([0.62, 0.50, 0.43, 0.47, 0.85])
    found = quadratic_minimum(x, y)
    a, b, _ = np.polyfit(x, y, 2)
    assert (found.at, found.curvature) == pytest.approx((-b / (2 * a), 2 * a)) and found.interior
    assert found.low < found.at < found.high
    free = np.sum((y - np.polyval(np.polyfit(x, y, 2), x)) ** 2)
    for end in (found.low, found.high):  # a minimum there adds t^2 s^2 to the residual sum, s^2 = free / 2
        square = (x - end) ** 2
        bound = np.sum((y - np.polyval(np.polyfit(square, y, 1), square)) ** 2)
        assert (bound - free) / (free / 2) == pytest.approx(scipy_stats.t.ppf(0.975, 2) ** 2)
        assert quadratic_minimum(x, y, null=end).p == pytest.approx(0.05)


def test_a_minimum_moves_with_its_units() -> None:
    x, y = np.arange(6.0), np.array([5.0, 2.2, 0.9, 1.1, 3.0, 7.2])
    found, moved = quadratic_minimum(x, y, null=1.9), quadratic_minimum(1000 + x / 10, 3 * y - 40, null=1000.19)
    ends = [1000 + v / 10 for v in (found.at, found.low, found.high)]
    assert ends == pytest.approx([moved.at, moved.low, moved.high])
    assert (moved.curvature, moved.p) == pytest.approx((300 * found.curvature, found.p))


def test_an_exact_parabola_has_an_exact_minimum_even_outside_the_points() -> None:
    x = np.arange(5.0)
    assert math.isnan(quadratic_minimum(x, (x - 1.25) ** 2, blocks=x).at)  # no two points of one block
    inside, outside = quadratic_minimum(x, (x - 1.25) ** 2), quadratic_minimum(x, (x - 9.0) ** 2 / 7 + 3)
    assert (inside.at, inside.low, inside.high) == pytest.approx((1.25, 1.25, 1.25)) and inside.interior
    assert outside.at == pytest.approx(9.0) and not outside.interior and outside.p < 1e-6


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([0, 1, 2], [1, 0, 1]), ([0, 0, 1, 1, 1], [1, 2, 0, 1, 3]), ([0, 1, 2, 3], [0, 1, 1, 0]),
        ([0, 1, 2, 3], [0.7, 0.7, 0.7, 0.7]), ([0, 1, 2, 3], [0.3, 0.6, 0.9, 1.2]),
    ],
    ids=["three points", "two places", "curved downward", "flat", "straight"],
)  # fmt: skip
def test_what_is_no_valley_has_no_minimum(x: list[float], y: list[float]) -> None:
    found = quadratic_minimum(x, y)
    assert np.isnan([found.at, found.p]).all() and (found.low, found.high, found.interior) == (-INF, INF, False)


def test_a_valley_that_noise_could_have_made_rules_nothing_out() -> None:
    found = quadratic_minimum([0, 1, 2, 3, 4], [1.0, 0.2, 0.9, 0.1, 1.1])
    assert found.interior and (found.low, found.high) == (-INF, INF) and math.isnan(found.p)


# A clear valley; one that is often not significant; a clear one with different offsets per block.
@pytest.mark.parametrize(("noise", "blocks"), [(0.05, None), (0.5, None), (0.05, [0, 1, 2, 0, 1, 2, 1, 0, 2])])
def test_fiellers_interval_covers_as_often_as_it_says(noise: float, blocks: list[int] | None) -> None:
    rng = np.random.default_rng(1)
    x = np.array([-2, -2, -1, -1, -0.5, 0, 0, 1, 3])  # unevenly spaced: a and b are correlated
    y = 0.2 * (x - 0.7) ** 2 + rng.normal(0, noise, (SIMULATED, 9))
    if blocks is not None:
        y += rng.normal(0, 9, (SIMULATED, 3))[:, blocks]
    found = [quadratic_minimum(x, each, blocks=blocks) for each in y]
    whole = np.mean([each.low == -INF for each in found])
    assert whole == 0 if noise < 0.1 else 0.1 < whole < 0.9
    covered = np.mean([each.low <= 0.7 <= each.high for each in found])
    assert covered == pytest.approx(0.95, abs=WITHIN) if noise < 0.1 else covered > 0.95 - WITHIN


def test_an_interval_from_seeds_ends_where_their_mean_slope_is_rejected() -> None:
    x, random = np.array([-2.0, 0.0, 1.0, 2.0, 3.0]), np.random.default_rng(0)
    losses = (x - 0.7) ** 2 / 20 + 0.02 * random.standard_normal((5, 5)) + random.standard_normal((5, 1))
    found = seed_minimum(x, losses)
    a, b, _ = np.polyfit(x, losses.T, 2)
    assert (found.at, found.curvature) == pytest.approx((-b.mean() / (2 * a.mean()), 2 * a.mean())) and found.interior
    for end in (found.low, found.high):
        assert scipy_stats.ttest_1samp(2 * a * end + b, 0).pvalue == pytest.approx(0.05)
        assert seed_minimum(x, losses, null=end).p == pytest.approx(0.05)
    assert found.at == pytest.approx(quadratic_minimum(x, losses.mean(axis=0)).at)


def test_an_interval_from_seeds_covers_as_often_as_it_says_and_misfit_does_not_widen_it() -> None:
    x, random = np.arange(-2.0, 4.0), np.random.default_rng(1)
    shape = (x - 1) ** 2 / 20
    found = [seed_minimum(x, shape + 0.02 * random.standard_normal((5, 6))) for _ in range(SIMULATED)]
    assert np.mean([each.low <= 1 <= each.high for each in found]) == pytest.approx(0.95, abs=WITHIN)
    losses = shape + 0.01 * random.standard_normal((5, 6))
    plain, bent = seed_minimum(x, losses), seed_minimum(x, losses + 0.05 * np.array([0, 1, -2, 2, -1, 0]))
    assert bent.high - bent.low < 1.5 * (plain.high - plain.low)


@pytest.mark.parametrize(
    "losses", [[[3.0, 1.0, 2.0]], [[1.0, 1.0, 1.0]] * 3, [[1.0, 2.0, 1.0]] * 2, [[3.0, 1.0, NAN], [3.0, 1.0, 2.0]], []]
)
def test_without_seeds_or_a_valley_a_minimum_is_not_identified(losses: list[list[float]]) -> None:
    found = seed_minimum([0, 1, 2], losses)
    assert np.isnan([found.at, found.p]).all() and (found.low, found.high) == (-INF, INF)
    opposite = seed_minimum([0, 1, 2], [[3.0, 1.0, 2.0], [1.0, 1.2, 1.0]])
    assert not math.isnan(opposite.at) and (opposite.low, opposite.high) == (-INF, INF)


def test_the_best_pairs_intervals_cover_as_often_as_they_say() -> None:
    found = [minima.surface_minimum(*surface(seed)) for seed in range(300)]
    for axis, truth in enumerate((-9.0, -6.0)):
        covered = np.mean([each[axis].low <= truth <= each[axis].high for each in found])
        assert covered == pytest.approx(0.95, abs=4 * np.sqrt(0.05 * 0.95 / 300))
        assert all(np.isfinite([each[axis].low, each[axis].high]).all() for each in found)


def test_a_best_pair_that_noise_could_have_made_has_no_ends_and_what_is_no_valley_has_none() -> None:
    found = minima.surface_minimum(*surface(0, noise=1.0))
    assert np.isnan(found[0].at) or np.isinf([found[0].low, found[0].high]).any()
    places, values = surface(0)
    for none in (minima.surface_minimum(places, -values), minima.surface_minimum(places[:6], values[:6])):
        assert np.isnan([each.at for each in none]).all() and not none[0].interior


@pytest.mark.parametrize("at", [1.6, 2.0, 2.4])
def test_a_vertex_is_that_of_the_parabola_through_the_lowest_three(at: float) -> None:
    x = np.array([3.0, 0.0, 1.0, 2.0, 4.0])
    y = (x - at) ** 2 / 7 + 0.3
    y[[1, 4]] += 5  # the ends are not among the three
    assert vertex(x, y) == pytest.approx(at)


@pytest.mark.parametrize("y", [[1, 2, 3], [3, 2, 1], [2, 1, NAN], [NAN, 1, 2], [NAN, NAN, NAN], [2, 1]])
def test_a_lowest_point_without_both_neighbours_has_no_vertex(y: list[float]) -> None:
    assert math.isnan(vertex(range(len(y)), y))


def test_of_equal_lowest_points_the_first_is_the_middle_one() -> None:
    assert vertex([0, 1, 2, 3], [5, 1, 1, 1]) == pytest.approx(1.5)
    assert math.isnan(vertex([0, 1, 2], [1, 1, 1]))
