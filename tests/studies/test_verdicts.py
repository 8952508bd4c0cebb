"""The verdicts follow from the interval, the paper's number and the margin; the number of seeds from the spread."""

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from loralab.studies.stats import Interval, mean_interval
from loralab.studies.verdicts import CONTRADICTED, EQUIVALENT, HELD, UNKNOWN, seeds_needed, verdict


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
    assert verdict(found, paper=0.01, margin=0.005) == wanted


def test_a_fall_is_the_mirror_of_a_rise() -> None:
    for mean, spread in ((0.012, 0.002), (0.004, 0.003), (0.001, 0.001), (0.012, 0.03), (-0.02, 0.005)):
        rise, fall = verdict(of(mean, spread), paper=0.01, margin=0.005), of(-mean, spread)
        assert verdict(fall, paper=-0.01, margin=0.005) == rise


def test_equivalent_is_two_one_sided_tests_at_five_percent() -> None:
    """Against scipy's tests, on both sides of the smallest margin that they pass."""
    values = np.array([0.001, -0.002, 0.004, 0.0, 0.003])
    found = mean_interval(values)

    def passes(margin: float) -> bool:
        above = scipy_stats.ttest_1samp(values, -margin, alternative="greater").pvalue
        below = scipy_stats.ttest_1samp(values, margin, alternative="less").pvalue
        return bool(max(above, below) < 0.05)

    for margin in np.linspace(0.001, 0.008, 15):
        assert (verdict(found, paper=1.0, margin=float(margin)) == EQUIVALENT) == passes(float(margin))


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
