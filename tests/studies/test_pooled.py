"""The pooled gain is the paired test's on whole designs, has the errors of seeds and items, and its stated level."""

import math
from itertools import product

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats as scipy_stats

from loralab.studies import pooled
from loralab.studies.pooled import item_covariance, mixed_means, pooled_gain, pooled_ratios, population_mean
from loralab.studies.stats import Array, mean_interval, paired
from loralab.studies.verdicts import power
from tests.small_runs import CONF

RATIO = CONF.parent / "analysis" / "results" / "ratio.csv"
BY = ["task", "lora.init"]
SETTINGS = list(product(("trec", "rotten_tomatoes"), "AB"))


def table(scores: Array, correct: "NDArray[np.bool_] | None" = None) -> pd.DataFrame:
    """Runs with these scores (settings, seeds, arms); arm a has the ratio 2**a."""
    rows = [
        {
            "task": SETTINGS[s][0],
            "lora.init": SETTINGS[s][1],
            "seed": 100 + k,
            "lora.ratio": 2.0**a,
            "x": scores[s, k, a],
        }
        for s, k, a in np.ndindex(scores.shape)
    ]
    frame = pd.DataFrame(rows)
    return frame if correct is None else frame.assign(correct=[packed(correct[at]) for at in np.ndindex(scores.shape)])


def packed(right: NDArray[np.bool_]) -> str:
    return f"{len(right)}:{np.packbits(right).tobytes().hex()}"


def gain(frame: pd.DataFrame, ratio: float = 2.0) -> pooled.Pooled:
    return pooled_gain(frame, ratio, 1.0, arm="lora.ratio", by=BY, metric="x")


def draws(seed: int, shape: tuple[int, ...], seeds: "float | Array", rest: "float | Array") -> Array:
    """Scores (..., settings, seeds, arms): of each setting the spread between seeds, and that of the rest."""
    random = np.random.default_rng(seed)
    between = np.reshape(seeds, (-1, 1, 1)) * random.standard_normal((*shape[:-1], 1))
    return 0.8 + between + np.reshape(rest, (-1, 1, 1)) * random.standard_normal(shape)


def closed_form(scores: Array) -> tuple[Array, Array, int]:
    """The last arm's gain over the first, its standard error, degrees: paired, with the residual of all arms."""
    *_, settings, seeds, arms = scores.shape
    rest = (
        scores - scores.mean(-1, keepdims=True) - scores.mean(-2, keepdims=True) + scores.mean((-2, -1), keepdims=True)
    )
    degrees = settings * (seeds - 1) * (arms - 1)
    gains = (scores[..., -1] - scores[..., 0]).mean((-2, -1))
    return gains, np.sqrt(2 * (rest**2).sum((-3, -2, -1)) / degrees / (settings * seeds)), degrees


@pytest.mark.parametrize("seeds", [0.004, 0.0])  # with variance between seeds, and where REML often finds none
@pytest.mark.parametrize("arms", [2, 4])
def test_with_all_arms_on_all_seeds_the_mixed_model_is_the_paired_test_with_a_common_error(
    seeds: float, arms: int
) -> None:
    for seed in range(4):
        scores = draws(seed, (4, 3, arms), seeds, 0.005)
        estimate, error, degrees = closed_form(scores)
        found = gain(table(scores), 2.0 ** (arms - 1)).effect
        half = scipy_stats.t.ppf(0.975, degrees) * error
        assert found.estimate == pytest.approx(float(estimate)) and (found.degrees, found.n) == (degrees, 12)
        assert (found.low, found.high) == pytest.approx((estimate - half, estimate + half), rel=1e-3)


def test_with_one_setting_and_two_arms_it_is_student_s_paired_test() -> None:
    scores = draws(0, (1, 6, 2), 0.01, 0.005)
    found, wanted = gain(table(scores)), paired(scores[0, :, 1], scores[0, :, 0])
    assert (found.effect.low, found.effect.high) == pytest.approx((wanted.low, wanted.high), rel=1e-4)
    assert found.effect.p == pytest.approx(wanted.p, rel=1e-3) and np.isnan(found.population.low)
    assert found.settings[SETTINGS[0]].estimate == pytest.approx(wanted.estimate)


def test_a_run_that_is_missing_or_diverged_in_a_third_arm_leaves_the_gain() -> None:
    frame = table(draws(1, (2, 5, 3), 0.004, 0.005))
    third = frame["lora.ratio"] == 4.0
    for other in (
        frame.drop(index=frame[third].index[0]),
        frame.assign(x=frame["x"].mask(third & (frame["seed"] == 100))),
    ):
        found = gain(other).effect
        assert found.estimate == pytest.approx(gain(frame).effect.estimate, abs=1e-6)
        assert found.degrees == 2 * 4 * 2 - (1 if len(other) < len(frame) else 2)


def test_without_an_error_to_estimate_there_is_no_interval() -> None:
    scores = draws(2, (2, 4, 2), 0.004, 0.005)
    diverged = scores.copy()
    diverged[0, 0, 1] = np.nan
    for frame in (table(diverged), table(scores[:, :1]), table(np.full((2, 3, 2), 0.5))):
        found = gain(frame)
        assert np.isnan(found.effect.low) and np.isnan(found.effect.p) and len(found.settings) == 2
    assert gain(table(scores), 64.0).settings == {} and mixed_means([1, 2.0], [0, 1], [0, 0]) is None


def test_a_setting_without_one_of_the_arms_is_left_out() -> None:
    frame = table(draws(3, (3, 4, 2), 0.004, 0.005))
    short = frame[~((frame["task"] == "rotten_tomatoes") & (frame["lora.ratio"] == 1.0))]
    assert [*gain(short).settings] == [("trec", "A"), ("trec", "B")]


def test_the_population_s_interval_is_student_s_over_settings_where_their_errors_are_equal() -> None:
    gains = np.array([0.004, -0.003, 0.009, 0.002])
    found, wanted = population_mean(gains, np.full(4, 0.001)), mean_interval(gains)
    assert (found.low, found.high, found.p) == pytest.approx((wanted.low, wanted.high, wanted.p))
    near = population_mean(np.array([0.0, 0.01]), np.array([1e-4, 1.0])).estimate
    assert abs(near) < 1e-3, "a setting that is known better counts more"


def test_the_items_error_is_that_of_their_effects_and_settings_on_one_test_set_share_it() -> None:
    """On average over draws, with seeds' effects and noise beside them."""
    random, found = np.random.default_rng(0), []
    for _ in range(400):
        item, seed, rest = (random.standard_normal(shape) for shape in ((1, 1, 50), (2, 4, 1), (2, 4, 50)))
        found.append(item_covariance([*(0.3 * item + 0.2 * seed + 0.5 * rest)], ["trec", "trec"]))
    assert np.mean(found, axis=0) == pytest.approx(np.full((2, 2), 0.3**2 / 50), rel=0.05)
    apart = item_covariance([random.standard_normal((3, 20)) for _ in range(2)], ["trec", "sms"])
    assert apart[0, 1] == apart[1, 0] == 0


def test_predictions_add_the_items_error_where_the_metric_is_their_mean() -> None:
    random = np.random.default_rng(1)
    easy = random.random((1, 1, 1, 200)) < 0.7
    # the gain is on the same items each time
    helped = np.array([0.0, 1.0]).reshape(1, 1, 2, 1) * (random.random((1, 1, 1, 200)) < 0.1)
    right = (easy | (helped > 0)) ^ (random.random((2, 4, 2, 200)) < 0.05)
    frame = table(right.mean(axis=-1), right)
    found, without = gain(frame), gain(frame.drop(columns="correct"))
    assert found.items > 0 == without.items and found.effect.estimate == without.effect.estimate
    narrow = (without.effect.high - without.effect.low) / (found.effect.high - found.effect.low)
    assert narrow < 0.9 and (found.effect.degrees or 0) > (without.effect.degrees or 0)
    assert gain(frame.assign(x=frame["x"] + 0.01)).items == 0, "of another metric"
    assert gain(frame.assign(correct=frame["correct"].where(frame.index > 0))).items == 0, (
        "of a run without predictions"
    )


def test_ratios_are_pooled_in_logarithms_with_one_variance() -> None:
    random = np.random.default_rng(2)
    logs = {("trec",): random.normal(0.5, 0.1, 6), ("sms",): random.normal(0.7, 0.1, 4)}
    found = pooled_ratios({name: np.exp(values) for name, values in logs.items()})
    rest = sum(((each - each.mean()) ** 2).sum() for each in logs.values()) / 8
    half = scipy_stats.t.ppf(0.975, 8) * np.sqrt(rest * (1 / 6 + 1 / 4)) / 2
    middle = np.mean([each.mean() for each in logs.values()])
    effect = found.effect
    assert [effect.estimate, effect.low, effect.high] == pytest.approx(np.exp([middle, middle - half, middle + half]))
    assert (effect.n, effect.degrees) == (10, 8) and [each.n for each in found.settings.values()] == [6, 4]
    assert found.population.low < effect.low and found.population.n == 2
    exact = pooled_ratios({("trec",): [2.0, 2.0], ("sms",): [3.0, 3.0], ("imdb",): [2.5, 2.5]})
    population = mean_interval(np.log([2.0, 3.0, 2.5]))
    assert exact.effect.low == exact.effect.high
    assert exact.population.low == pytest.approx(np.exp(population.low)), "known without error: the settings' spread"
    unknown = pooled_ratios({("trec",): [1.5, math.nan], ("sms",): [2.0, 2.1]})
    assert np.isnan(unknown.effect.low) and np.isnan(unknown.population.low)


def measured() -> tuple[Array, Array]:
    """Of the settings of `ratio`: the spread between seeds, and that of the rest."""
    frame = pd.read_csv(RATIO)
    between, rest = [], []
    for _, rows in frame[frame["stage"] == "confirm"].groupby(BY):
        scores = rows.pivot(index="seed", columns="lora.ratio", values="test/accuracy").to_numpy()
        gaps = scores - scores.mean(0) - scores.mean(1, keepdims=True) + scores.mean()
        rest.append((gaps**2).sum() / (gaps.shape[0] - 1) / (gaps.shape[1] - 1))
        between.append(max(0.0, scores.mean(1).var(ddof=1) - rest[-1] / gaps.shape[1]))
    return np.sqrt(between), np.sqrt(rest)


def test_of_two_thousand_draws_five_percent_err_without_an_effect_and_a_point_is_found() -> None:
    """Two tasks x two inits x 40 seeds; the mixed model is the closed form, as above, which is fast enough."""
    scores = draws(7, (2000, 4, 40, 2), *measured())
    gains, errors, degrees = closed_form(scores)
    edge = scipy_stats.t.ppf(0.975, degrees)
    assert np.mean(np.abs(gains / errors) > edge) == pytest.approx(0.05, abs=0.01)
    assert np.mean((gains + 0.01) / errors > edge) > 0.9
    one = gain(table(scores[0])).effect
    assert np.mean((gains + 0.002) / errors > edge) == pytest.approx(power(one, 0.002), abs=0.05)


def test_the_level_holds_with_few_seeds_and_with_items() -> None:
    """1,000 draws at the level of items: seeds' and items' effects in both tasks, four seeds."""
    random, wrong = np.random.default_rng(3), 0
    for _ in range(1000):
        item, seed, rest = (random.standard_normal(s) for s in ((2, 1, 1, 60), (2, 2, 4, 1), (2, 2, 4, 60)))
        gains = (0.15 * item + 0.05 * seed + 0.3 * rest).reshape(4, 4, 60)
        seeds = gains.mean(axis=2).var(axis=1, ddof=1).mean() / 16
        items = max(0.0, item_covariance([*gains], [0, 0, 1, 1]).mean())
        edge = scipy_stats.t.ppf(0.975, 12 * ((seeds + items) / seeds) ** 2)
        wrong += abs(gains.mean()) > edge * np.sqrt(seeds + items)
    assert 0.03 < wrong / 1000 < 0.07
