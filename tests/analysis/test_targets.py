"""targets: budgets are exactly equal, the figure shows the CSV, and the claims find built-in differences."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from loralab.config.overrides import settings
from loralab.errors import UserError
from loralab.runs.build import adapted_backbone, read_task
from loralab.studies import results
from loralab.sweeps.study import open_study
from tests.analysis.frames import claims, distinct, drawn, made, marks, module, unlike, verdicts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TARGETS = module("targets")
SETS = ("q", "k", "v", "o", "q,k", "q,v", "q,k,v,o", "mlp", "all")
BUDGET, LAYERS = 30_720, 6  # parameters per layer, and layers of MiniLM


def better(points: float) -> pd.DataFrame:
    """Every other set of targets beats q alone by the given points, with noise."""

    def score(run: dict[str, Any]) -> dict[str, Any]:
        accuracy = 0.8 + points / 100 * (run["lora.targets"] != "q") + 1e-3 * unlike(run, "noise")
        return distinct(run) | {"test/accuracy": accuracy, "adapter": BUDGET * LAYERS, "correct": ""}

    return made("targets", score)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return made("targets", lambda run: distinct(run) | {"adapter": BUDGET * LAYERS, "correct": ""}).sample(
        frac=1, random_state=0
    )


@pytest.fixture(scope="module")
def figure(frame: pd.DataFrame) -> Iterator["Figure"]:
    with drawn("targets", frame) as found:
        yield found


def fresh(frame: pd.DataFrame, targets: str, metric: str) -> Any:
    rows = frame[(frame["stage"] == "confirm") & (frame["lora.targets"] == targets)].sort_values("seed")
    assert rows["seed"].tolist() == list(range(100, 105))
    return rows[metric].to_numpy(dtype=float)


@pytest.mark.slow
def test_every_arm_trains_the_same_number_of_parameters(tmp_path: Path) -> None:
    """Counted in the real MiniLM with its adapters, without the head."""
    counted = {}
    with open_study("targets", ("seed=0", "tracker=none", "train.device=cpu"), store=tmp_path) as study:
        for job in study.grid:
            targets = ",".join(settings(job)["lora.targets"])
            if targets not in counted:
                planned = study.planned(job)
                found = adapted_backbone(planned, read_task(planned))
                names = [name for name, p in found.model.named_parameters() if p.requires_grad]
                own = [name for name in names if not any(name.startswith(f"{head}.") for head in found.head)]
                counted[targets] = sum(found.model.get_parameter(name).numel() for name in own)
    assert counted == dict.fromkeys(SETS, BUDGET * LAYERS)


def test_scaling_is_one_and_trials_are_equal_in_every_arm(frame: pd.DataFrame) -> None:
    with open_study("targets", ("tracker=none",)) as study:
        configs = [study.composer.settings(job) for job in study.grid]
    assert {(config.lora.scaling, config.lora.alpha, config.lora.ratio) for config in configs} == {("constant", 1, 1)}
    assert {config.optim.head_lr for config in configs} == {4e-3}
    trials = frame[frame["stage"] == "grid"].groupby("lora.targets").size()
    assert trials.to_dict() == dict.fromkeys(SETS, 12)


def test_dots_and_bars_are_the_paired_differences_from_q_and_v_the_best_on_top(
    frame: pd.DataFrame, figure: "Figure"
) -> None:
    labels = [re.sub(r" +\(.*", "", text.get_text()) for text in figure.axes[0].get_yticklabels()]
    rows = [label.replace(", ", ",") for label in labels]
    means = [fresh(frame, targets, "test/accuracy").mean() for targets in rows]
    assert sorted(rows) == sorted(SETS) and means == sorted(means, reverse=True)
    for ax, metric, scale in zip(figure.axes, ("test/accuracy", "test/loss"), (100, 1), strict=True):
        ((_, _, values, ends),) = marks(ax, across=True)
        base = fresh(frame, "q,v", metric)
        for targets, x, bar in zip(rows, values, ends, strict=True):
            scores = fresh(frame, targets, metric)
            interval = stats.ttest_rel(scores, base).confidence_interval(0.95) if targets != "q,v" else (0, 0)
            assert x == pytest.approx(scale * (scores - base).mean())
            np.testing.assert_allclose(bar, scale * np.array(interval), rtol=1e-9)


def test_the_papers_numbers_stand_in_the_rows_of_their_targets(figure: "Figure") -> None:
    ax: Any = figure.axes[0]
    rows = [re.sub(r" +\(.*", "", text.get_text()).replace(", ", ",") for text in ax.get_yticklabels()]
    wikisql, mnli = (line for line in ax.lines if line.get_label().startswith("GPT-3"))
    found = {rows[place]: round(float(x), 1) for x, place in zip(*wikisql.get_data(), strict=True)}
    assert found == {"q": -3.3, "k": -3.7, "v": -0.7, "o": -0.5, "q,k": -2.3, "q,v": 0.0, "q,k,v,o": 0.0}
    assert round(float(max(mnli.get_xdata())), 1) == 0.4


def test_the_caption_and_the_summary_say_the_budget_and_the_ranks(frame: pd.DataFrame) -> None:
    assert "Adapters of 184,320 parameters each" in TARGETS.caption(frame)
    table = TARGETS.summary(frame).set_index("targets")
    assert set(table["adapter's parameters"]) == {"184,320"} and list(table.index) == list(SETS)
    assert table.loc["q", "rank"] == "r = 40" and table.loc["all", "rank"] == "r = 5, mlp 4"
    unequal = frame.assign(adapter=frame["adapter"].mask(frame["lora.targets"] == "q", 5))
    assert "Adapters of 5 or 184,320 parameters" in TARGETS.caption(unequal)


@pytest.mark.parametrize(("points", "verdict"), [(1.0, "held"), (-1.0, "contradicted in size"), (0.0, "equivalent")])
def test_the_claims_follow_what_was_built_in(points: float, verdict: str) -> None:
    found = claims("targets", better(points))
    assert [claim.arm for claim in found] == ["q, k, v and o", "q and v"]
    assert verdicts("targets", better(points)) == [verdict] * 2
    assert found[0].found.estimate == pytest.approx(points / 100, abs=1e-3)


@pytest.mark.parametrize(("targets", "stage", "total"), [("all", "grid", 108), ("q,k,v,o", "confirm", 45)])
def test_a_row_that_is_not_there_is_named(
    frame: pd.DataFrame, tmp_path: Path, targets: str, stage: str, total: int
) -> None:
    results.save(frame, tmp_path / "x.csv")
    pd.testing.assert_frame_equal(
        results.load_results("targets", path=tmp_path / "x.csv"), frame.reset_index(drop=True)
    )
    one = frame[(frame["lora.targets"] == targets) & (frame["stage"] == stage)].index[0]
    results.save(frame.drop(index=one), tmp_path / "x.csv")
    cell = rf"no row for .*lora\.targets=\[{targets}\].* \(1 of {total} runs have none\)"
    with pytest.raises(UserError, match=cell):
        results.load_results("targets", path=tmp_path / "x.csv")
