"""The statistics agree with scipy or with a result by hand, and intervals have their nominal coverage."""

import math
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats as scipy_stats

from loralab.studies.stats import (
    Interval,
    bootstrap_items,
    expected_maximum,
    holm,
    mean_interval,
    paired,
    ratio_interval,
    slope,
    whole_mean,
)

NAN, INF = math.nan, math.inf
SIMULATED = 2000
WITHIN = 4 * math.sqrt(0.05 * 0.95 / SIMULATED)  # four standard errors of a coverage of 95%

# Student 1908: the sleep gained by ten patients under two drugs; t = -4.0621, p = .002833.
FIRST_DRUG = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SECOND_DRUG = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def as_tuple(found: Interval) -> tuple[float, float, float, int, float]:
    return found.estimate, found.low, found.high, found.n, found.p


def answers(seeds: int, items: int, right: float, seed: int) -> NDArray[np.bool_]:
    """Answers (seeds, items); some items are harder than others for every seed."""
    rng = np.random.default_rng(seed)
    easy = np.clip(rng.normal(right, 0.3, items), 0, 1)
    return rng.random((seeds, items)) < easy


def test_a_mean_has_students_interval() -> None:
    found = mean_interval([1.0, 2.0, 3.0, 4.0, 5.0], null=2.0)  # s = 1.5811, t(4, .975) = 2.7764
    half = 2.7764 * 1.5811 / 5**0.5
    assert as_tuple(found) == pytest.approx((3.0, 3 - half, 3 + half, 5, 0.23020), rel=1e-4)


def test_one_value_has_no_interval_and_none_has_no_mean() -> None:
    assert as_tuple(mean_interval([0.8])) == pytest.approx((0.8, NAN, NAN, 1, NAN), nan_ok=True)
    assert as_tuple(paired([], [])) == pytest.approx((NAN, NAN, NAN, 0, NAN), nan_ok=True)


def test_pairs_agree_with_the_textbook_and_with_scipy() -> None:
    found = paired(FIRST_DRUG, SECOND_DRUG)
    assert as_tuple(found) == pytest.approx((-1.58, -2.4598858, -0.7001142, 10, 0.0028329), rel=1e-4)
    other = paired(FIRST_DRUG, SECOND_DRUG, level=0.9)
    scipys = scipy_stats.ttest_rel(FIRST_DRUG, SECOND_DRUG)
    assert other.p == pytest.approx(scipys.pvalue)
    assert (other.low, other.high) == pytest.approx(tuple(scipys.confidence_interval(0.9)))


def test_the_null_is_rejected_at_5_percent_where_the_interval_ends() -> None:
    found = paired(FIRST_DRUG, SECOND_DRUG)
    assert paired(FIRST_DRUG, SECOND_DRUG, null=found.low).p == pytest.approx(0.05)
    ratio = ratio_interval([3.0, 5.0, 9.0, 4.0], [2.0, 4.0, 5.0, 3.0])
    assert ratio_interval([3.0, 5.0, 9.0, 4.0], [2.0, 4.0, 5.0, 3.0], null=ratio.high).p == pytest.approx(0.05)


@pytest.mark.parametrize(("null", "p"), [(0.1, 1.0), (0.0, 0.0)])
def test_differences_that_are_equal_but_for_rounding_are_the_null_or_are_not(null: float, p: float) -> None:
    x, y = np.array([0.81, 0.72, 0.93]), np.array([0.71, 0.62, 0.83])
    assert len(set((x - y).tolist())) > 1  # rounding errors only
    found = paired(x, y, null=null)
    assert (found.estimate, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1)) and found.p == p
    assert paired([0.1 + 0.2, 0.5, 0.7], [0.3, 0.5, 0.7], null=null).p == 1 - p


def test_a_ratio_is_the_geometric_mean_and_swapping_the_arms_inverts_it() -> None:
    x, y = [2.0, 8.0, 3.0], [1.0, 2.0, 2.0]
    found, swapped = ratio_interval(x, y), ratio_interval(y, x)
    assert found.estimate == pytest.approx((2 * 4 * 1.5) ** (1 / 3))
    assert (1 / found.high, 1 / found.low, found.p) == pytest.approx((swapped.low, swapped.high, swapped.p))
    scipys = scipy_stats.ttest_rel(np.log(x), np.log(y)).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx(tuple(np.exp(scipys)))


def test_the_paired_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    seeds = rng.normal(0.8, 0.05, (SIMULATED, 5))  # common to both arms
    x, y = seeds + rng.normal(0.01, 0.02, seeds.shape), seeds + rng.normal(0.0, 0.01, seeds.shape)
    found = [paired(*arms) for arms in zip(x, y, strict=True)]
    assert np.mean([each.low <= 0.01 <= each.high for each in found]) == pytest.approx(0.95, abs=WITHIN)


def test_the_bootstrap_draws_the_same_items_in_both_arms_and_all_seeds() -> None:
    x, y = answers(3, 200, 0.75, seed=0), answers(3, 200, 0.65, seed=1)

    def difference(index: NDArray[np.int64], axis: int) -> NDArray[np.float64]:
        drawn: NDArray[np.float64] = (x[:, index].mean(axis=0) - y[:, index].mean(axis=0)).mean(axis=axis)
        return drawn

    scipys = scipy_stats.bootstrap(
        (np.arange(200),), difference, n_resamples=10_000, batch=500, method="percentile", rng=np.random.default_rng(2)
    )
    found = bootstrap_items(x, y)
    assert found.estimate == pytest.approx(x.mean() - y.mean()) and found.n == 200
    apart = 0.15 * scipys.standard_error  # four standard errors between two quantiles of 10,000 draws each
    assert (found.low, found.high) == pytest.approx(tuple(scipys.confidence_interval), abs=apart)
    assert bootstrap_items(x, y, null=found.low).p == pytest.approx(0.05, abs=0.015)


def test_seeds_that_repeat_each_other_make_the_items_no_more() -> None:
    x, y = answers(2, 300, 0.7, seed=3), answers(2, 300, 0.6, seed=4)
    once, thrice = bootstrap_items(x, y), bootstrap_items(np.tile(x, (3, 1)), np.tile(y, (3, 1)))
    assert as_tuple(once) == pytest.approx(as_tuple(thrice))
    assert as_tuple(bootstrap_items(np.tile(x, (3, 1)), y)) == pytest.approx(as_tuple(once))  # 3 seeds against 1


def test_the_bootstrap_has_a_seed_and_its_p_is_never_0() -> None:
    x, y = np.ones((2, 50), dtype=bool), np.zeros((2, 50), dtype=bool)
    assert as_tuple(bootstrap_items(x, y, draws=999)) == (1.0, 1.0, 1.0, 50, 2 / 1000)
    assert as_tuple(bootstrap_items(x, x)) == (0.0, 0.0, 0.0, 50, 1.0)
    x, y = answers(1, 100, 0.7, seed=5), answers(1, 100, 0.6, seed=6)
    assert bootstrap_items(x, y, seed=1) == bootstrap_items(x, y, seed=1) != bootstrap_items(x, y, seed=2)


def test_the_bootstrap_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    right = rng.random((SIMULATED, 1, 400))
    x, y = right < 0.75, (right + rng.normal(0, 0.2, right.shape)) < 0.7
    truth = float(x.mean() - y.mean())  # over all 800,000 items
    found = [bootstrap_items(*arms, draws=500) for arms in zip(x, y, strict=True)]
    assert np.mean([each.low <= truth <= each.high for each in found]) == pytest.approx(0.945, abs=WITHIN)


def test_the_expected_maximum_is_the_mean_over_all_subsets() -> None:
    values = [0.71, 0.9, 0.5, 0.9, 0.62, 0.85]
    best = [np.mean([max(drawn) for drawn in combinations(values, k)]) for k in range(1, 7)]
    least = [np.mean([min(drawn) for drawn in combinations(values, k)]) for k in range(1, 7)]
    assert expected_maximum(values, range(1, 7)) == pytest.approx(best)
    assert -expected_maximum(-np.array(values), [6, 2]) == pytest.approx([least[5], least[1]])
    many = np.random.default_rng(0).normal(size=2000)  # C(2000, 1000) is beyond a float
    assert expected_maximum(many, [1, 2000]) == pytest.approx([many.mean(), many.max()])


def test_a_diverged_trial_counts_until_no_draw_can_be_it_alone() -> None:
    assert expected_maximum([-0.5, -INF, -0.7], [1, 2, 3]) == pytest.approx([-INF, -0.5 * 2 / 3 - 0.7 / 3, -0.5])
    assert expected_maximum([-INF, 2.0, -INF], [2, 3]).tolist() == [-INF, 2.0]


def test_holm_agrees_by_hand_and_counts_no_nan() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([NAN, 0.01, 0.04, NAN, 0.03, 0.005]) == pytest.approx([NAN, 0.03, 0.06, NAN, 0.06, 0.02], nan_ok=True)
    assert holm([0.6, 0.7, 0.01]) == pytest.approx([1.0, 1.0, 0.03])
    assert holm([]).tolist() == [] and np.isnan(holm([NAN])).all()


def test_holm_rejects_a_true_null_in_at_most_5_percent_of_families() -> None:
    p = np.random.default_rng(0).random((SIMULATED, 8))
    p[:, :3] *= 1e-4  # three false nulls
    wrong = np.mean([(holm(family)[3:] <= 0.05).any() for family in p])
    assert 0.02 < wrong <= 0.05 + WITHIN


def test_a_slope_has_students_interval_of_what_the_line_leaves_over() -> None:
    x, y = [6.0, 7.0, 8.0, 9.0], [0.3, -0.9, -1.2, -2.9]
    line, t2 = scipy_stats.linregress(x, y), 4.302653  # two degrees of freedom
    found = slope(x, y)
    ends = (line.slope - t2 * line.stderr, line.slope + t2 * line.stderr)
    assert as_tuple(found) == pytest.approx((line.slope, *ends, 4, line.pvalue))
    assert slope(x, y, null=found.high).p == pytest.approx(0.05)
    assert as_tuple(slope([1, 2, 3], [4, 2, 0], null=-2)) == pytest.approx((-2, -2, -2, 3, 1))
    assert slope([1, 2, 3], [4, 2, 0]).p == 0 and np.isnan(slope([1, 1, 1], [4, 2, 0]).estimate)
    assert as_tuple(slope([1, 2], [4, 2])) == pytest.approx((-2, NAN, NAN, 2, NAN), nan_ok=True)


def test_a_slope_over_blocks_is_that_of_a_regression_with_an_intercept_for_each() -> None:
    x, y = np.array([0.0, 1, 2, 0, 1, 3, 5]), np.array([1.0, 0.4, 0.1, 7, 6.6, 5.5, 4.9])
    blocks = np.array(list("aaabbbc"))  # c has one point, which tells nothing about the slope
    design = np.column_stack([x, *(blocks == block for block in "abc")])
    fit, _, _, _ = np.linalg.lstsq(design, y)
    error = np.sqrt(np.linalg.inv(design.T @ design)[0, 0] * np.sum((y - design @ fit) ** 2) / 3)
    found = slope(x, y, blocks=blocks)
    half = scipy_stats.t.ppf(0.975, 3) * error
    assert as_tuple(found)[:4] == pytest.approx((fit[0], fit[0] - half, fit[0] + half, 7))
    assert found.p == pytest.approx(2 * scipy_stats.t.sf(abs(fit[0]) / error, 3))
    assert np.isnan(slope([1, 2], [3, 4], blocks=["a", "b"]).estimate)


def test_mistakes_are_refused_with_what_was_got() -> None:
    two = np.ones((2, 3), dtype=bool)
    for message, wrong in (
        ("x has 2 values and y has 3; they must be pairs", lambda: paired([1, 2], [1, 2, 3])),
        (r"values: got \[1.0, nan\]; a run that diverged has no value", lambda: mean_interval([1, NAN])),
        ("y: 0 has no logarithm", lambda: ratio_interval([1, 2], [1, 0])),
        ("level: got 95; a level such as 0.95", lambda: mean_interval([1, 2], level=95)),
        ("x has 3 items and y has 2", lambda: bootstrap_items(two, two[:, :2])),
        (r"x: got float64 of shape \(2, 3\); bool", lambda: bootstrap_items(two * 1.0, two)),
        ("trials: 3 of 2 values cannot be drawn; allowed: 1 to 2", lambda: expected_maximum([1, 2], [1, 3])),
        ("values: 1 of 2 are nan; a trial that diverged is -inf", lambda: expected_maximum([1, NAN], [1])),
        (r"p: got \[0.5, 1.5\]; each must lie from 0 to 1", lambda: holm([0.5, 1.5])),
    ):
        with pytest.raises(ValueError, match=message):
            wrong()


def test_a_mean_of_seeds_is_none_where_one_has_no_score() -> None:
    assert whole_mean(pd.Series([1.0, 2.0])) == 1.5 and np.isnan(whole_mean(pd.Series([1.0, np.nan])))
