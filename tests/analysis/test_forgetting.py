"""forgetting: what was built into the losses of English is found, by arm and by seed, and the figure shows it."""

import functools
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest

from tests.analysis.frames import claims, distinct, drawn, made, module, unlike, verdicts

FORGETTING = module("forgetting")
ARMS = ("r = 8", "r = 64", "r = 8, λ = 4", "r = 8, λ = 16", "r = 8, all maps", FORGETTING.FULL)
BEFORE = 3.0
GAINED = dict(zip(ARMS, (0.1, 0.2, 0.1, 0.15, 0.3, 0.5), strict=True))  # nats per token
LEARNED = {FORGETTING.FULL: 0.05}  # test loss; the others have .1


def name_of(run: dict[str, Any]) -> str:
    if run["method"] == "full":
        return str(FORGETTING.FULL)
    ratio = f", λ = {run['lora.ratio']:g}" if run["lora.ratio"] != 1 else ""
    maps = ", all maps" if run["lora.targets"] == "all" else ""
    return f"r = {run['lora.rank']:g}{ratio}{maps}"


@functools.cache
def built(scale: float = 1.0) -> pd.DataFrame:
    """Every arm gains `scale` times GAINED in the loss of English, with a level of each seed."""

    def score(run: dict[str, Any]) -> dict[str, Any]:
        arm, level = name_of(run), unlike({"seed": run["seed"]}, "level") / 50
        gained = scale * GAINED[arm] + level + 1e-4 * unlike(run, "gained")
        rates = {FORGETTING.FULL: 1e-4, "r = 8, λ = 4": 4e-3, "r = 8, λ = 16": 2e-3, "r = 8, all maps": 4e-3}
        away = np.log2(run["optim.lr"] / rates.get(arm, 8e-3))
        losses = {"validation/loss": 1 + away**2, "test/loss": LEARNED.get(arm, 0.1) + level}
        prose = {FORGETTING.BEFORE: BEFORE, FORGETTING.AFTER: BEFORE + gained}
        return distinct(run) | losses | prose | {FORGETTING.ACCURACY: 0.8, "correct": ""}

    return made("forgetting", score)


def test_the_summary_has_every_arm_with_its_perplexity() -> None:
    summary = FORGETTING.summary(built()).set_index("arm")
    assert list(summary.index) == list(ARMS) and summary["interior"].all()
    assert set(summary["perplexity before"]) == {round(float(np.exp(BEFORE)), 2)}
    for arm, gained in GAINED.items():
        assert summary.loc[arm, "perplexity"] == pytest.approx(np.exp(BEFORE + gained + 0.01), rel=0.02)


@pytest.mark.parametrize(("scale", "wanted"), [(1.0, "held"), (-1.0, "contradicted in size")])
def test_the_claims_follow_what_was_built_in(scale: float, wanted: str) -> None:
    assert verdicts("forgetting", built(scale)) == [wanted, "held", wanted, wanted, wanted]
    estimates = [claim.found.estimate for claim in claims("forgetting", built(scale))]
    assert estimates == pytest.approx([0.4 * scale, 0.05, 0.2 * scale, 0.1 * scale, 0.05 * scale], abs=1e-3)


def test_the_figure_shows_the_rates_and_the_fresh_seeds_of_every_arm() -> None:
    frame = built()
    arms = FORGETTING.named(frame)
    with drawn("forgetting", frame) as figure:
        left, right = cast(Any, figure.axes)
        for at, own in enumerate(arms.values()):
            rates, mean = left.lines[2 * at], left.containers[at].lines[0]
            grid = own[own["stage"] == "grid"]
            np.testing.assert_allclose(rates.get_ydata(), grid[FORGETTING.FORGOTTEN])
            fresh = own.loc[own["stage"] == "confirm", FORGETTING.FORGOTTEN].mean()
            assert float(mean.get_ydata()[0]) == pytest.approx(fresh) and mean.get_color() == rates.get_color()
            assert float(right.containers[at].lines[0].get_xdata()[0]) == pytest.approx(fresh)
        assert [text.get_text() for text in right.get_yticklabels()] == list(ARMS)


def test_the_caption_says_what_was_read() -> None:
    assert "50 reviews of IMDb, 64 tokens each, perplexity 20.1 before" in FORGETTING.caption(built())
