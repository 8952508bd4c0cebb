"""Tuned rates: a parabola's lowest point is found exactly, its interval covers it, and only bracketed optima count."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from loralab.studies.tuned_rates import (
    ONE_SEED,
    SETTING,
    fresh_noise,
    seed_noise,
    tuned_arms,
    tuned_rate,
    with_settings,
)

RATES: Any = 1e-3 * 2.0 ** np.arange(5)


def valley(at: float, rates: Any = RATES, curvature: float = 0.02) -> Any:
    """(1, rates): a parabola in log2 of the rate with its minimum at `at`."""
    return 0.4 + curvature * np.log2(np.asarray(rates) / at)[None] ** 2


def runs(losses: dict[float, tuple[float, ...]], **axes: Any) -> list[dict[str, Any]]:
    """Runs of one arm, by rate the losses of the seeds."""
    setting = {"task": "trec", "model": "minilm", "lora.rank": 8, "lora.alpha": 8, "train.steps": 100, "stage": "grid"}
    return [
        {**setting, **axes, "optim.lr": rate, "seed": seed, "validation/loss": loss}
        for rate, values in losses.items()
        for seed, loss in enumerate(values)
    ]


@pytest.mark.parametrize("at", [1.6e-3, 2e-3, 4e-3, 7e-3])
def test_the_lowest_point_of_a_parabola_is_exact(at: float) -> None:
    found = tuned_rate(RATES, valley(at), noise=0.0)
    assert found is not None
    assert [found.rate, found.low, found.high] == pytest.approx([at] * 3, rel=1e-9)


def test_an_optimum_at_an_end_or_on_a_coarse_grid_is_none() -> None:
    assert tuned_rate(RATES, valley(5e-4), noise=0.0) is None
    assert tuned_rate(RATES, valley(1e-1), noise=0.0) is None
    coarse: Any = 1e-3 * 4.0 ** np.arange(5)
    assert tuned_rate(coarse, valley(4e-3, coarse), noise=0.0) is None
    assert tuned_rate(RATES, np.full((2, 5), np.nan), noise=0.0) is None


def test_next_to_a_rate_that_diverged_the_optimum_is_half_a_step_lower() -> None:
    losses = np.array([[0.5, 0.45, 0.4, np.nan, np.nan], [0.5, 0.45, 0.4, 0.3, np.nan]])  # one seed of two diverged
    found = tuned_rate(RATES, losses, noise=0.01)
    assert found is not None
    assert found.rate == pytest.approx(4e-3 / np.sqrt(2))
    assert (found.low, found.high) == pytest.approx((2e-3, 8e-3)), "it lies between the neighbours"


def test_a_valley_that_noise_could_have_made_ends_at_the_nearest_rates_that_are_worse_beyond_it() -> None:
    losses = valley(4e-3)
    depth = float(losses[0, [1, 3]].sum() - 2 * losses[0, 2])
    edge = depth / 1.96 / np.sqrt(6)
    wide, sure = (tuned_rate(RATES, losses, noise=noise) for noise in (1.01 * edge, 0.99 * edge))
    assert wide is not None and sure is not None and wide.rate == sure.rate == pytest.approx(4e-3)
    assert (wide.low, wide.high) == (RATES[0], RATES[-1]) and 0 < sure.low < sure.high < np.inf
    lost = tuned_rate(RATES, losses, noise=10 * edge)
    assert lost is not None and (lost.low, lost.high) == (0, np.inf)


def test_the_interval_covers_the_optimum() -> None:
    random, noise, covered = np.random.default_rng(0), 0.004, []
    for _ in range(400):
        found = tuned_rate(RATES, valley(3.7e-3) + noise * random.standard_normal((2, 5)), noise)
        assert found is not None
        covered.append(found.low <= 3.7e-3 <= found.high)
    assert 0.9 < np.mean(covered) <= 1


def test_noise_between_seeds_leaves_out_what_a_seed_does_to_all_rates() -> None:
    random, rows = np.random.default_rng(0), []
    for ratio in range(1, 200):
        seeds = random.standard_normal(2)[:, None] + 0.01 * random.standard_normal((2, 5))
        losses = valley(4e-3, curvature=0.5) + seeds
        rows += runs({rate: tuple(losses[:, at]) for at, rate in enumerate(RATES)}, **{"lora.ratio": ratio})
    assert seed_noise(with_settings(pd.DataFrame(rows))) == pytest.approx(
        0.0083, rel=0.15
    )  # the median: .01 sqrt(ln 2)
    one = pd.DataFrame(runs(dict.fromkeys(RATES, (0.4,))))
    assert seed_noise(with_settings(one)) == ONE_SEED


def test_arms_differ_in_any_setting_but_the_rate_and_the_seed() -> None:
    low = dict(zip(RATES, valley(2e-3).T.tolist(), strict=True))
    high = dict(zip(RATES, valley(6e-3).T.tolist(), strict=True))
    pinned, riding = {"optim.head_lr": "0.004"}, {"optim.head_lr": "${optim.lr}"}
    rows = [*runs(low, method="lora_plus", **pinned), *runs(high, method="lora_plus", **riding)]
    rows += [*runs(low, method="rslora", **pinned), *runs(high, method="full", **pinned)]
    rows += [*runs(low, method="bitfit", **pinned), *runs(low, method="lora", **{**pinned, "stage": "confirm"})]
    found = tuned_arms(pd.DataFrame(rows), "name")
    assert len(found) == 4
    assert found["study"].unique().tolist() == ["name"]
    arms = {(arm["method"], arm["lora.scaling"], arm["optim.head_lr"]): arm for arm in found.to_dict("records")}
    plus, loose = arms["lora", "alpha/r", "pinned"], arms["lora", "alpha/r", "${optim.lr}"]
    assert (plus["lora.ratio"], plus["s"], plus["tuned"]) == (4.0, 1.0, pytest.approx(2e-3))
    assert loose["tuned"] == pytest.approx(6e-3)
    assert arms["lora", "alpha/sqrt_r", "pinned"]["s"] == pytest.approx(8 / np.sqrt(8))
    assert np.isnan(arms["full", "alpha/r", "pinned"]["s"])


def test_a_ratio_that_the_study_varies_stays() -> None:
    low = dict(zip(RATES, valley(2e-3).T.tolist(), strict=True))
    rows = [run for ratio in (1, 16) for run in runs(low, **{"lora.ratio": ratio, "method": "lora"})]
    assert tuned_arms(pd.DataFrame(rows), "name")["lora.ratio"].tolist() == [1, 16]
    assert set(SETTING) < set(tuned_arms(pd.DataFrame(rows), "name"))


def test_the_noise_of_fresh_seeds_is_what_neither_seed_nor_arm_explains() -> None:
    """Against the residuals of a two-way analysis by hand: ± .03 in each of the eight cells, with three degrees."""
    rows = [
        {"stage": "confirm", "seed": seed, "lora.ratio": ratio, "validation/loss": 1 + seed + ratio + 0.03 * sign}
        for seed in range(4)
        for ratio, sign in ((1, (-1) ** seed), (4, -((-1) ** seed)))
    ]
    frame = pd.DataFrame([*rows, {"stage": "grid", "seed": 0, "lora.ratio": 1, "validation/loss": 9.0}])
    assert fresh_noise(frame, "lora.ratio") == pytest.approx(np.sqrt(8 * 0.03**2 / 3))
    assert np.isnan(fresh_noise(frame[frame["stage"] == "grid"], "lora.ratio"))
    diverged = frame.assign(**{"validation/loss": frame["validation/loss"].mask(frame.index == 0)})
    assert np.isnan(fresh_noise(diverged, "lora.ratio"))


def test_a_noise_that_is_given_sets_the_intervals() -> None:
    frame = pd.DataFrame(runs(dict(zip(RATES, zip(*valley(4e-3), strict=True), strict=True)), **{"lora.ratio": 1}))
    widths = [np.log(tuned_arms(frame, "x", noise=noise)["high"] / 4e-3).item() for noise in (0.001, 0.003)]
    assert widths[1] == pytest.approx(3 * widths[0])
