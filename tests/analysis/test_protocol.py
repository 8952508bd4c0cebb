"""protocol: the pairs are those of LoRA+'s protocol in lr_grid, which reports a gain where λ does nothing."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from loralab.config.overrides import settings
from loralab.sweeps.study import open_study
from tests.analysis.frames import distinct, drawn, made, module, unlike

PROTOCOL = module("protocol")


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """The best pairs gain .3 points over the best equal pairs on fresh seeds."""

    def score(run: dict[str, Any]) -> dict[str, Any]:
        level = 0.8 + unlike({"seed": run["seed"]}, "level") / 20 + 0.002 * (unlike(run, "noise") - 0.5)
        return distinct(run) | {"test/accuracy": level + 0.003 * (run["lora.ratio"] != 1), "correct": ""}

    return made("protocol", score).sample(frac=1, random_state=0)


def test_pairs_are_those_that_the_protocol_chooses_in_lr_grid(frame: pd.DataFrame) -> None:
    with open_study("protocol") as study:
        jobs = pd.DataFrame([settings(job) for job in study.grid])
    assert len(jobs) == 160
    for (task, init), plane in PROTOCOL.planes(frame).items():
        assert len(plane) == 63 and int(PROTOCOL.equal(plane).sum()) == 7
        best, base = PROTOCOL.chosen(plane).to_dict("records")
        assert best["validation/accuracy"] == plane["validation/accuracy"].max()
        own = jobs[(jobs["task"] == task) & (jobs["lora.init"] == init)]
        pairs = {(job["lora.ratio"], job["optim.lr"]) for _, job in own.iterrows()}
        assert pairs == {(pair["lora.ratio"], pair["optim.lr"]) for pair in (best, base)} and base["lora.ratio"] == 1


def test_what_is_reported_of_the_committed_grid(frame: pd.DataFrame) -> None:
    once = [PROTOCOL.reported(plane) for plane in PROTOCOL.planes(frame).values()]
    np.testing.assert_allclose(once, [0.018, 0.008, 0.006, 0.012])


def plane(accuracies: list[float]) -> pd.DataFrame:
    """Pairs of one product lr_A lr_B, λ = 1, 4, 16, ..., with these accuracies."""
    ratios = 4.0 ** np.arange(len(accuracies))
    pairs = {"lora.ratio": ratios, "optim.lr": 1e-2 / np.sqrt(ratios), "validation/accuracy": accuracies}
    return pd.DataFrame(pairs)


def test_where_lambda_does_nothing_the_protocol_reports_what_the_maximum_of_the_noise_gives() -> None:
    """Of two equal pairs, one of equal rates: E max(0, difference) = noise / sqrt(pi)."""
    draws = PROTOCOL.of_nothing(plane([0.5, 0.7]), np.random.default_rng(1))
    assert draws.mean() == pytest.approx(PROTOCOL.noise() / np.sqrt(np.pi), rel=0.03) and draws.min() == 0
    assert 0.005 < PROTOCOL.noise() < 0.008
    fewer = PROTOCOL.of_nothing(plane([0.5, 0.7]), np.random.default_rng(1), seeds=4)
    np.testing.assert_allclose(fewer, draws / 2, atol=1e-12)


def test_the_mean_of_the_settings_is_last_and_narrower(frame: pd.DataFrame) -> None:
    *settings_of, mean = PROTOCOL.nothing(frame)
    assert mean.estimate == pytest.approx(np.mean([each.estimate for each in settings_of]))
    assert mean.high - mean.low < min(each.high - each.low for each in settings_of)


def test_fresh_seeds_have_the_gain_that_was_built_in(frame: pd.DataFrame) -> None:
    found = PROTOCOL.on_fresh_seeds(frame)
    assert found.effect.estimate == pytest.approx(0.003, abs=2e-4) and found.effect.n == 80
    assert len(PROTOCOL.questions(frame)) == 1


def test_the_figure_and_the_summary_have_each_setting(frame: pd.DataFrame) -> None:
    with drawn("protocol", frame) as figure:
        (ax,) = figure.axes
        assert [label.get_text() for label in ax.get_yticklabels()][-1] == "mean, pooled"
        assert len(ax.containers) == 3
    table = PROTOCOL.summary(frame)
    assert table["reported"].tolist() == ["+1.80", "+0.80", "+0.60", "+1.20"]
    assert "20 seeds" in PROTOCOL.caption(frame)
