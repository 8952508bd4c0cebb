"""targets_decoder: budgets are exactly equal, the figure shows the CSV, and claims find what is built in."""

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from loralab.config.overrides import settings
from loralab.sweeps.study import open_study
from tests.analysis.frames import claims, distinct, drawn, made, module, unlike, verdicts

TARGETS = module("targets_decoder")
BUDGET, LAYERS = 126_720, 30  # parameters per layer, and layers of SmolLM2-135M
SHAPES = {"q": 576 + 576, "k": 576 + 192, "v": 576 + 192, "o": 576 + 576, "mlp": 3 * (576 + 1536)}  # per unit of rank


def built(points: float = 1.0) -> pd.DataFrame:
    """The MLP and all maps beat attention by these points, and have a loss that is lower by .02 per point."""

    def score(run: dict[str, Any]) -> dict[str, Any]:
        gain, level = points * (run["lora.targets"] != "q,k,v,o"), unlike({"seed": run["seed"]}, "level") / 20
        accuracy = 0.7 + level + gain / 100 + 1e-3 * unlike(run, "accuracy")
        loss = {"test/loss": 1 + level - gain / 50 + 1e-3 * unlike(run, "loss")}
        away = {"validation/loss": abs(np.log2(run["optim.lr"] / 1.2e-3))}
        return distinct(run) | loss | away | {"test/accuracy": accuracy, "adapter": BUDGET * LAYERS, "correct": ""}

    return made("targets_decoder", score)


def test_every_arm_has_the_same_number_of_parameters_by_the_shapes_of_the_maps() -> None:
    with open_study("targets_decoder", ("tracker=none",)) as study:
        arms = [settings(job) for job in study.grid]
    found = set()
    for arm in arms:
        roles = [*SHAPES] if arm["lora.targets"] == ["all"] else arm["lora.targets"]
        ranks: Mapping[str, int] = arm.get("lora.rank_pattern", {})
        found.add(sum(SHAPES[role] * ranks.get(role, arm["lora.rank"]) for role in roles))
    assert found == {BUDGET}


def test_the_claims_and_verdicts_follow_what_was_built_in() -> None:
    for points, wanted in ((1.0, "held"), (-1.0, "contradicted in size")):
        frame = built(points)
        assert verdicts("targets_decoder", frame) == [wanted] * 2
        for claim in claims("targets_decoder", frame):
            assert claim.loss is not None
            found = (claim.found.estimate, claim.loss.estimate)
            assert found == pytest.approx((points / 100, -points / 50), abs=2e-3)
        summary = TARGETS.summary(frame).set_index("targets")
        assert summary["interior"].all() and set(summary["adapter's parameters"]) == {"3,801,600"}


def test_dots_and_bars_are_the_paired_differences_from_attention() -> None:
    frame = built()
    with drawn("targets_decoder", frame) as figure:
        windows, *panels = cast(Any, figure.axes)
        assert [len(line.get_xdata()) for line in windows.lines] == [3] * 3
        for ax, metric, scale in zip(panels, ("test/accuracy", "test/loss"), (100, 1), strict=True):
            for bars, targets in zip(ax.containers, ("mlp", "all"), strict=True):
                own, base = (
                    frame[(frame["stage"] == "confirm") & (frame["lora.targets"] == each)].sort_values("seed")[metric]
                    for each in (targets, "q,k,v,o")
                )
                assert float(bars.lines[0].get_xdata()[0]) == pytest.approx(scale * (own.mean() - base.mean()))
                ends = scale * np.array(stats.ttest_rel(own, base).confidence_interval(0.95))
                np.testing.assert_allclose(bars.lines[2][0].get_segments()[0][:, 0], ends)
