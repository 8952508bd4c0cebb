"""The verdicts follow from the interval, the paper's number and the margin; the number of seeds from the spread."""

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from loralab.studies.stats import Interval, interval_of, mean_interval
from loralab.studies.verdicts import (
    CONTRADICTED,
    EQUIVALENT,
    HELD,
    UNKNOWN,
    power,
    seeds_needed,
    standard_error,
    verdict,
    verdicts,
)


def of(mean: float, spread: float, n: int = 5) -> Interval:
    """The interval of n values with this mean and standard deviation."""
    values = np.linspace(-1, 1, n)
    return mean_interval(mean + spread * values / values.std(ddof=1))


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (of(0.012, 0.002), HELD),
        (of(0.004, 0.003), CONTRADICTED),  # beyond 0, but a point is excluded
        (of(-0.02, 0.005), CONTRADICTED),
        (of(0.001, 0.001), EQUIVALENT),
        (of(0.012, 0.03), UNKNOWN),
        (of(0.001, 0.03), UNKNOWN),
        (Interval(0.02, math.nan, math.nan, 1, math.nan), UNKNOWN),
        (Interval(0.02, -math.inf, math.inf, 5, math.nan), UNKNOWN),
    ],
)
def test_a_gain_of_a_point_is_judged_by_its_interval(found: Interval, wanted: str) -> None:
    assert verdict(found, number=0.01, margin=0.005) == wanted


def test_a_fall_is_the_mirror_of_a_rise() -> None:
    for mean, spread in ((0.012, 0.002), (0.004, 0.003), (0.001, 0.001), (0.012, 0.03), (-0.02, 0.005)):
        rise, fall = verdict(of(mean, spread), number=0.01, margin=0.005), of(-mean, spread)
        assert verdict(fall, number=-0.01, margin=0.005) == rise


def test_equivalent_is_two_one_sided_tests_at_five_percent() -> None:
    """Against scipy's tests, on both sides of the smallest margin that they pass."""
    values = np.array([0.001, -0.002, 0.004, 0.0, 0.003])
    found = mean_interval(values)

    def passes(margin: float) -> bool:
        above = scipy_stats.ttest_1samp(values, -margin, alternative="greater").pvalue
        below = scipy_stats.ttest_1samp(values, margin, alternative="less").pvalue
        return bool(max(above, below) < 0.05)

    for margin in np.linspace(0.001, 0.008, 15):
        assert (verdict(found, number=1.0, margin=float(margin)) == EQUIVALENT) == passes(float(margin))


@pytest.mark.parametrize(("spread", "margin"), [(0.004, 0.005), (0.01, 0.005), (0.03, 0.005), (1e-5, 0.005)])
def test_the_seeds_needed_are_the_fewest_with_half_the_margin(spread: float, margin: float) -> None:
    n = int(seeds_needed(of(0.0, spread), margin))

    def half(count: int) -> float:
        return float(scipy_stats.t.ppf(0.975, count - 1)) * spread / math.sqrt(count)

    assert half(n) <= margin / 2 * (1 + 1e-9)
    assert n == 2 or half(n - 1) > margin / 2


def test_without_an_interval_no_number_of_seeds_is_known() -> None:
    assert math.isnan(seeds_needed(Interval(0.1, math.nan, math.nan, 1, math.nan), 0.005))
    assert math.isinf(seeds_needed(of(0.0, 1e6), 0.005))


def test_the_verdicts_of_a_question_are_adjusted_over_its_claims() -> None:
    weak, strong, empty = of(0.012, 0.008), of(0.012, 0.001), Interval(0.0, math.nan, math.nan, 1, math.nan)
    assert verdict(weak, number=0.01, margin=0.005) == HELD
    assert verdicts([weak, weak], numbers=[0.01] * 2, margin=0.005, exact=[False] * 2) == [UNKNOWN] * 2
    assert verdicts([weak, strong, empty], numbers=[0.01] * 3, margin=0.005, exact=[False] * 3) == [
        HELD,
        HELD,
        UNKNOWN,
    ], "Holm: in steps"
    same, less = of(0.0, 0.004), of(0.004, 0.004)
    assert verdicts([same, less], numbers=[0.01] * 2, margin=0.005, exact=[False] * 2) == [EQUIVALENT, CONTRADICTED]
    assert verdicts([same] * 9, numbers=[0.01] * 9, margin=0.005, exact=[False] * 9) == [CONTRADICTED] * 9
    assert verdicts([], numbers=[], margin=0.005, exact=[]) == []


def test_an_exact_number_is_held_within_the_margin_and_contradicted_where_it_is_excluded() -> None:
    for mean, spread, wanted in (
        (-1.1, 0.1, HELD),
        (-0.6, 0.1, CONTRADICTED),
        (-1.4, 0.1, CONTRADICTED),
        (-1, 1, UNKNOWN),
    ):
        assert verdict(of(mean, spread), number=-1.0, margin=0.25, exact=True) == wanted
    far, near = of(-0.6, 0.1), of(-1.1, 0.1)
    assert verdicts([far, near], numbers=[-1.0] * 2, margin=0.25, exact=[True, False]) == [CONTRADICTED, HELD]


def test_an_asymmetric_interval_is_tested_by_its_end_toward_the_value() -> None:
    low, high = Interval(1.0, 0.05, 9.0, 6, math.nan), Interval(1.0, -0.05, 1.9, 6, math.nan)
    assert verdict(low, number=2.0, margin=0.1) == HELD and verdict(high, number=1.5, margin=0.1) == UNKNOWN
    assert verdict(high, number=2.0, margin=0.1) == CONTRADICTED and verdict(low, number=8.0, margin=0.1) == HELD


def test_an_interval_s_own_degrees_of_freedom_are_used() -> None:
    found = interval_of(0.004, 0.0023, 112, 5)
    assert standard_error(found) == pytest.approx(0.0023) and found.p == pytest.approx(0.0847, abs=1e-4)
    assert verdict(found, number=0.01, margin=0.005) == CONTRADICTED
    assert verdict(interval_of(0.004, 0.0023, 4, 5), number=0.01, margin=0.005) == UNKNOWN
    exact = interval_of(0.012, 0.0, 4, 5)
    assert verdict(exact, number=0.01, margin=0.005) == HELD and (exact.low, exact.high, exact.p) == (0.012, 0.012, 0)


def test_power_is_the_share_of_draws_whose_test_finds_the_gain() -> None:
    random = np.random.default_rng(0)
    values = random.standard_normal((20_000, 6)) * 0.01 + 0.01
    found = of(0.0, 0.01, 6)
    share = float(np.mean(scipy_stats.ttest_1samp(values, 0.0, axis=1).pvalue < 0.05))
    assert power(found, 0.01) == pytest.approx(share, abs=0.01) == power(found, -0.01)
    assert power(found, 0.0) == pytest.approx(0.05) and math.isnan(
        power(Interval(0.0, math.nan, math.nan, 1, 1.0), 1.0)
    )


def test_seeds_cannot_reduce_the_items_error() -> None:
    found = of(0.0, 0.004)
    n = int(seeds_needed(found, 0.005, items=0.001))
    spread = math.sqrt(0.004**2 - 5 * 0.001**2)
    halves = [scipy_stats.t.ppf(0.975, k - 1) * math.hypot(spread / math.sqrt(k), 0.001) for k in (n, n - 1)]
    assert halves[0] <= 0.0025 < halves[1]
    assert math.isinf(seeds_needed(found, 0.005, items=0.0014))
