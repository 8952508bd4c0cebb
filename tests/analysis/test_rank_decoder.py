"""rank_decoder: a built-in loss with the rank and a built-in exponent of the rate are found; the figure shows them."""

import functools
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest

from tests.analysis.frames import claims, distinct, drawn, made, module, unlike, verdicts

RANK = module("rank_decoder")
RANKS = (1, 4, 8, 64)


@functools.cache
def built(points: float = 0.0, power: float = 0.0) -> pd.DataFrame:
    """Each doubling of the rank gains these points; the best rate is 4e-3 (r / 8)^power."""

    def score(run: dict[str, Any]) -> dict[str, Any]:
        doublings, level = np.log2(run["lora.rank"] / 8), unlike({"seed": run["seed"]}, "level") / 20
        away = np.log2(run["optim.lr"] / 4e-3) - power * doublings
        loss = 1 + level + away**2 / 10 + 1e-4 * unlike(run, "loss")
        accuracy = 0.7 + level + points / 100 * doublings + 1e-3 * unlike(run, "accuracy")
        return distinct(run) | {"validation/loss": loss, "test/loss": loss, "test/accuracy": accuracy, "correct": ""}

    return made("rank_decoder", score)


@pytest.mark.parametrize(("points", "wanted"), [(0.0, "held"), (1.0, "contradicted in size")])
def test_the_claims_of_table_6_follow_what_was_built_in(points: float, wanted: str) -> None:
    assert verdicts("rank_decoder", built(points))[:2] == [wanted] * 2
    one, four, _ = (claim.found.estimate for claim in claims("rank_decoder", built(points)))
    assert (one, four) == pytest.approx((-6 * points / 100, -4 * points / 100), abs=2e-3)


@pytest.mark.parametrize("power", [0.0, 0.12])
def test_the_exponent_of_the_tuned_rate_is_what_was_built_in(power: float) -> None:
    found = RANK.exponent(built(power=power))
    assert found.estimate == pytest.approx(power, abs=0.01) and found.n == 4
    assert verdicts("rank_decoder", built(power=power))[2] == "held"


def test_the_summary_compares_every_rank_with_the_largest() -> None:
    summary = RANK.summary(built(1.0)).set_index("rank")
    assert list(summary.index) == list(RANKS) and summary["interior"].all()
    assert set(summary["lr_A"]) == {4e-3}


def test_the_figure_shows_the_windows_and_the_means_by_rank() -> None:
    frame = built(1.0)
    fresh = frame[frame["stage"] == "confirm"].groupby("lora.rank")
    with drawn("rank_decoder", frame) as figure:
        windows, *panels = cast(Any, figure.axes)
        assert [line.get_label() for line in windows.lines] == [f"r = {rank}" for rank in RANKS]
        for ax, metric in zip(panels, ("test/accuracy", "test/loss"), strict=True):
            (bars,) = ax.containers
            ranks, means = bars.lines[0].get_data()
            assert list(ranks) == list(RANKS)
            np.testing.assert_allclose(np.asarray(means, dtype=float), fresh[metric].mean().to_numpy())
