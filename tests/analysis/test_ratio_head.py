"""ratio_head: the two ways to train the head are kept apart; the claim is about the head that follows lr_A."""

from typing import Any

import pandas as pd
import pytest
from scipy import stats

from tests.analysis.frames import claims, distinct, drawn, made, marks, module, unlike, verdicts

HEAD = module("ratio_head")
RIDING, RATIOS = "${optim.lr}", (1, 4, 16, 64)


def scores(run: dict[str, Any]) -> dict[str, Any]:
    """λ = 16 is better by a point if the head's rate is pinned, and worse by a point if it follows lr_A."""
    gain = 0.01 if run["optim.head_lr"] != RIDING else -0.01
    accuracy = 0.8 + gain * (run["lora.ratio"] == 16) + 1e-3 * unlike(run, "noise")
    return distinct(run) | {"test/accuracy": accuracy}


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return made("ratio_head", scores).sample(frac=1, random_state=0)


def fresh(frame: pd.DataFrame, rides: bool, ratio: float, metric: str) -> Any:
    rows = frame[(frame["stage"] == "confirm") & (frame["lora.ratio"] == ratio)]
    rows = rows[(rows["optim.head_lr"].astype(str) == RIDING) == rides].sort_values("seed")
    assert len(rows) == 5
    return rows[metric].to_numpy(dtype=float)


def test_marks_are_each_heads_paired_differences_from_equal_rates(frame: pd.DataFrame) -> None:
    with drawn("ratio_head", frame) as figure:
        for ax, metric, scale in zip(figure.axes, ("test/accuracy", "test/loss"), (100, 1), strict=True):
            found = marks(ax, across=True)
            assert [label for label, *_ in found] == ["head at 4e-3", "head at lr$_A$"]
            for rides, (_, _, values, ends) in zip((False, True), found, strict=True):
                one, *arms = (fresh(frame, rides, ratio, metric) for ratio in RATIOS)
                assert values == pytest.approx([scale * (scores - one).mean() for scores in arms])
                interval = stats.ttest_rel(arms[1], one).confidence_interval(0.95)
                assert ends[1] == pytest.approx([scale * end for end in interval])


def test_the_claim_is_that_of_the_head_that_rides(frame: pd.DataFrame) -> None:
    sixteen, *others = claims("ratio_head", frame)
    assert [claim.arm for claim in others] == ["λ = 4", "λ = 64"]
    some, one = (fresh(frame, True, ratio, "test/accuracy") for ratio in (16, 1))
    assert sixteen.found.estimate == pytest.approx((some - one).mean())
    assert verdicts("ratio_head", frame)[0] == "contradicted in size"
    summary = HEAD.summary(frame).set_index(["head", "ratio"])["difference, points"]
    assert summary["head at lr_A", 16].startswith("-") and summary["head at 4e-3", 16].startswith("+")
