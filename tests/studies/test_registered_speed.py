"""The registered speed-up is the factor in time between curves, from losses or accuracies, and says so with noise."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from loralab.studies.registered_speed import BAND, registered_speedup, times_at
from loralab.studies.thinned_curves import SHARES, curve

STEPS = np.arange(0, 101, 5.0)
Value = Callable[[float], float]


def loss(time: float) -> float:
    return 0.3 + 0.8 * math.exp(-time / 20)


def made(value: Value, speed: float = 1.0, *, noise: float = 0.0, seed: int = 0) -> list[tuple[float, float]]:
    errors = noise * np.random.default_rng(seed).standard_normal(len(STEPS))
    return [(step, value(speed * step) + error) for step, error in zip(STEPS.tolist(), errors.tolist(), strict=True)]


@pytest.mark.parametrize("speed", [0.6, 1.0, 1.5, 2.5])
def test_the_speed_up_is_the_factor_in_time(speed: float) -> None:
    found = registered_speedup([made(loss)] * 3, [made(loss, speed)] * 3, start=loss(0))
    assert found.estimate == pytest.approx(speed, rel=0.04) and found.n == 3
    assert found.low == pytest.approx(found.high)


def test_accuracies_that_mirror_the_losses_have_the_same_speed_up() -> None:
    runs = [[made(loss, speed, noise=0.01, seed=seed) for seed in range(4)] for speed in (1.0, 1.4)]
    mirrored = [[[(step, 1 - value) for step, value in run] for run in arm] for arm in runs]
    found = registered_speedup(*runs, start=loss(0))
    assert registered_speedup(*mirrored, start=1 - loss(0)).estimate == pytest.approx(found.estimate)
    back = registered_speedup(runs[0], runs[0], start=loss(0))
    assert (back.estimate, back.low, back.high) == (1, 1, 1)


def test_registration_is_less_noisy_than_one_crossing() -> None:
    end, speeds, crossed = loss(STEPS[-1]), [], []
    for seed in range(200):
        base, other = made(loss, noise=0.02, seed=seed), made(loss, 1.5, noise=0.02, seed=seed + 1000)
        speeds.append(registered_speedup([base], [other], start=loss(0)).estimate)
        target = loss(0) + 0.9 * (end - loss(0))
        times = [next((step for step, value in run if value <= target), math.inf) for run in (base, other)]
        crossed.append(times[0] / times[1])
    assert np.exp(np.mean(np.log(speeds))) == pytest.approx(1.5, rel=0.03)
    assert np.std(np.log(speeds)) < 0.5 * np.std(np.log([each for each in crossed if 0 < each < math.inf]))


def test_the_interval_covers_as_often_as_it_says() -> None:
    hits = 0
    for draw in range(300):
        seeds = range(10 * draw, 10 * draw + 5)
        base = [made(loss, noise=0.02, seed=2 * seed) for seed in seeds]
        other = [made(loss, 1.5, noise=0.02, seed=2 * seed + 1) for seed in seeds]
        found = registered_speedup(base, other, start=loss(0))
        hits += found.low <= 1.5 <= found.high
    assert hits / 300 > 0.9


def test_a_slow_curve_is_registered_over_the_levels_that_it_reaches() -> None:
    """At half the speed it ends at 92% of 1 - exp(-5 / 2), below the band's top."""
    short = [made(loss, 0.4)] * 2
    assert registered_speedup([made(loss)] * 2, short, start=loss(0)).estimate == pytest.approx(0.4, rel=0.03)


def test_a_curve_that_diverges_or_gains_little_has_no_speed_up() -> None:
    base = [made(loss)] * 2
    for other in (made(loss)[:3], [], made(loss, 0.1), [(step, math.nan) for step in STEPS]):
        assert math.isnan(registered_speedup(base, [made(loss), other], start=loss(0)).low), other
    assert math.isnan(registered_speedup([[], []], base, start=1.0).estimate)
    assert math.isnan(registered_speedup([], [], start=1.0).estimate)
    flat = [[(0.0, 1.0), (1.0, 1.0)]]
    assert math.isnan(registered_speedup(flat, flat, start=1.0).estimate)
    with pytest.raises(ValueError, match="2 curves and other has 1"):
        registered_speedup(base, base[:1], start=1.0)


def test_a_flat_piece_counts_as_its_middle_and_noise_does_not_turn_back_time() -> None:
    points = [(0.0, 0.0), (10.0, 0.5), (20.0, 0.5), (30.0, 1.0)]
    assert times_at(np.array([0.25, 0.5, 0.75]), points, start=0, gain=1).tolist() == [7.5, 15, 22.5]
    bump = [(0.0, 0.0), (10.0, 0.6), (20.0, 0.4), (30.0, 1.0)]
    assert times_at(np.array([0.5]), bump, start=0, gain=1).tolist() == [15]
    assert np.isnan(times_at(np.array([0.1, 0.9]), [(1.0, 0.2), (2.0, 0.8)], start=0, gain=1)).all()


def test_the_ten_numbers_of_a_csv_s_row_are_a_curve() -> None:
    """From 10% of the steps on, where a run of this speed has passed 30% of its gain: those levels are left out."""
    at = {**{f"validation/loss@{share:g}": 100 * share for share in SHARES}, "validation/loss": 100.0}
    first, second = (curve({name: loss(speed * step) for name, step in at.items()}) for speed in (0.5, 0.8))
    found = registered_speedup([first] * 2, [second] * 2, start=loss(0))
    assert found.estimate == pytest.approx(1.6, rel=0.05)
    assert np.isnan(times_at(BAND, second, start=loss(0), gain=loss(50) - loss(0))[0])
