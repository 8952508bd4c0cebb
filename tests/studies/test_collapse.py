"""One curve for all widths: powers that were built in are found, and a wrong power leaves a large residual."""

import itertools
import math

import numpy as np
import pytest

from loralab.studies.collapse import Cells, Curve, lowest_place, powers, residual, separate_residual, shifts
from loralab.studies.stats import Array

WIDTHS = (64, 128, 256, 512, 1024)


def plane(powers_of_n: tuple[float, float], noise: float = 0.005, widths: tuple[int, ...] = WIDTHS) -> Cells:
    """A bent valley over lr_A and lr_B, seen in a window at each width, with a level of each width."""
    rng, rows = np.random.default_rng(3), []
    for n in widths:
        wide = math.log2(n / 64)
        for log_ratio, step in itertools.product((-2, 0, 2, 4, 6), (-1, 0, 1)):
            x = -log_ratio / 2 - wide / 2 + step  # no window follows the theory: at each λ it falls as n^-1/2
            u, v = x - powers_of_n[0] * wide, x + log_ratio - powers_of_n[1] * wide
            valley, along = u + v, (v - u) / 2 - 2
            value = 0.35 + 0.02 * valley**2 + 0.003 * valley**3 + 0.005 * along**2 + 0.02 * wide
            rows.append((x, x + log_ratio, n, value + noise * rng.standard_normal()))
    x, y, n, value = np.array(rows).T
    return Cells(np.column_stack([x, y]), n, value, degree=3, levels=True)


def line(power: float, noise: float = 0.003, seed: int = 0) -> Cells:
    """A curve over log2 λ without levels, of which each width sees five places."""
    rng = np.random.default_rng(seed)
    x, n = (np.array(each, dtype=float) for each in zip(*itertools.product((-2, 0, 2, 4, 6), WIDTHS), strict=True))
    moved = x - power * np.log2(n / 64)
    return Cells(x[:, None], n, 0.35 + 0.004 * (moved - 2) ** 2 + noise * rng.standard_normal(len(x)), degree=4)


@pytest.mark.parametrize("truth", [(-1.0, 0.0), (-0.5, -0.5), (0.0, 0.0)])
def test_powers_that_were_built_in_are_inside_their_intervals_and_far_ones_are_not(truth: tuple[float, float]) -> None:
    found = powers(plane(truth), (0.5, 0.5))
    for each, power in zip(found, truth, strict=True):
        assert each.low <= power <= each.high and each.high - each.low < 0.5
        assert each.estimate == pytest.approx(power, abs=0.15) and each.p < 0.001 and each.n == 75


def test_an_interval_is_where_the_sum_of_squares_grows_by_t2_over_f() -> None:
    """Found again by a scan of the one power."""
    from scipy import stats

    cells = line(1.0)
    (found,) = powers(cells, (1.0,))
    scan = np.linspace(-2.5, 2.5, 2001)
    squares = np.array([cells.square(np.array([power])) for power in scan])
    degrees = len(cells.values) - 5 - 1
    inside = scan[squares <= squares.min() * (1 + stats.t.ppf(0.975, degrees) ** 2 / degrees)]
    assert (found.low, found.high) == pytest.approx((inside.min(), inside.max()), abs=0.01)
    assert found.estimate == pytest.approx(scan[squares.argmin()], abs=0.01) and found.degrees == degrees
    t = math.sqrt((cells.square(np.array([1.0])) - squares.min()) / (squares.min() / degrees))
    assert found.p == pytest.approx(2 * stats.t.sf(t, degrees), abs=1e-3)


def test_intervals_hold_the_truth_in_95_percent_of_draws() -> None:
    held = [(each := powers(line(1.0, seed=seed), (1.0,))[0]).low <= 1 <= each.high for seed in range(60)]
    assert 0.86 <= np.mean(held) <= 1


def test_the_curve_of_lambda_over_n_has_the_noises_residual_and_that_of_lambda_alone_does_not() -> None:
    right = line(1.0)
    assert (
        residual(right, [1.0]) == pytest.approx(0.003, rel=0.4) == pytest.approx(separate_residual(right, 2), rel=0.6)
    )
    assert residual(right, [0.0]) > 3 * residual(right, [1.0])
    wrong = line(0.0)  # the best λ is the same at each width
    assert residual(wrong, [1.0]) > 3 * separate_residual(wrong, 2)
    (found,) = powers(wrong, (1.0,))
    assert found.high < 0.5 and found.p < 0.001


def test_noise_alone_says_nothing_about_a_power_in_nine_of_ten_draws() -> None:
    """Where g is flat nothing moves; the best fit then often has widths that lie apart, each on its own piece of g."""
    places, widths, said = line(1.0).places, line(1.0).widths, []
    for seed in range(60):
        values = 0.3 + 0.01 * np.random.default_rng(seed).standard_normal(25)
        (found,) = powers(Cells(places, widths, values, degree=4), (1.0,))
        said.append(not math.isnan(found.p))
        assert said[-1] or (found.low, found.high) == (-math.inf, math.inf)
    assert np.mean(said) <= 0.1


def test_a_perfect_fit_has_no_width() -> None:
    (found,) = powers(line(1.0, noise=0.0), (0.0,))
    assert (found.low, found.high, found.p) == pytest.approx((1.0, 1.0, 0.0), abs=1e-4)


def test_one_width_has_no_power() -> None:
    cells = plane((-1.0, 0.0), widths=(64,))
    assert all(math.isnan(each.estimate) and math.isnan(each.p) for each in powers(cells, (0.0, 0.0)))
    assert shifts(cells) == {}


def test_each_width_is_shifted_by_its_powers_and_the_lowest_place_is_the_valleys() -> None:
    cells = plane((-1.0, 0.0), noise=0.002)
    moved = shifts(cells)
    assert list(moved) == [128, 256, 512, 1024]
    for n, (first, second) in moved.items():
        wide = math.log2(n / 64)
        assert (
            first.estimate == pytest.approx(-wide, abs=0.3) and first.low <= -wide + 0.1 and first.high >= -wide - 0.1
        )
        assert second.estimate == pytest.approx(0, abs=0.3) and second.high - second.low < 1
    assert lowest_place(cells) == pytest.approx([-1, 1], abs=0.8)  # λ = 4, in the middle of the valley


def test_a_difference_of_the_one_curve_has_the_truths_value_and_is_unknown_outside_what_was_measured() -> None:
    found = Curve(line(1.0), 1.0)
    gain = found.difference(2.0, -4.0)
    assert gain.low < 0.004 * (0 - 36) < gain.high and gain.high - gain.low < 0.01
    at: Array = found(np.array([2.0, -6.0, -6.5, 6.5]))
    assert at[0] == pytest.approx(0.35, abs=0.004) and np.isnan(at).tolist() == [False, False, True, True]
    for outside in ((6.5, 0.0), (0.0, -6.5)):
        assert math.isnan(found.difference(*outside).estimate)


def test_levels_are_taken_out_of_what_is_drawn_and_out_of_no_difference() -> None:
    cells = line(1.0)
    up = cells.values + 0.1 * np.log2(cells.widths / 64)
    level = Curve(Cells(cells.places, cells.widths, up, degree=4, levels=True), 1.0)
    plain = Curve(Cells(cells.places, cells.widths, cells.values, degree=4, levels=True), 1.0)
    assert level.difference(2.0, -4.0).estimate == pytest.approx(plain.difference(2.0, -4.0).estimate, abs=1e-9)
    np.testing.assert_allclose(level.aligned - level.aligned.mean(), plain.aligned - plain.aligned.mean(), atol=1e-9)
    np.testing.assert_allclose(level(np.array([0.0])) - plain(np.array([0.0])), 0.2, atol=1e-9)
    assert np.array_equal(Curve(cells, 1.0).aligned, cells.values)
