"""rate_law: arms at the law's rate miss it by nothing; slopes, levels of tasks and other studies' arms are found."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.analysis.frames import claims, distinct, drawn, made, module

STUDY = module("rate_law")
LEVELS = {"rotten_tomatoes": -0.5, "trec_fine": 1.3, "sms_spam": 1.5}  # doublings above the law


def valleys(levels: dict[str, float]) -> pd.DataFrame:
    """Losses that are lowest at the law's rate times a level of the task."""

    def score(run: dict[str, Any]) -> dict[str, Any]:
        arm = {"method": "lora", "model": run["model"], "targets": run["lora.targets"], "steps": run["train.steps"]}
        arm |= {"s": run["lora.alpha"] / run["lora.rank"], "rank": run["lora.rank"], "ratio": run["lora.ratio"]}
        away = np.log2(run["optim.lr"] / STUDY._predicted(arm | {"init": "A"})) - levels.get(run["task"], 0.0)
        return distinct(run) | {"validation/loss": 0.4 + 0.02 * away**2}

    return made("rate_law", score)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return valleys({})


@pytest.fixture(scope="module")
def uneven() -> pd.DataFrame:
    return valleys(LEVELS)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the arms of other studies."""
    monkeypatch.setattr(STUDY, "OTHERS", ())


@pytest.mark.usefixtures("alone")
def test_an_arm_at_the_laws_rate_misses_it_by_nothing(frame: pd.DataFrame) -> None:
    arms = STUDY.arms_of(frame)
    assert len(arms) >= 20
    assert arms["doublings"].to_numpy() == pytest.approx(0, abs=1e-6)
    assert STUDY.rms(arms["left_out"]) == pytest.approx(0, abs=1e-6)
    assert STUDY.share(arms["doublings"]).estimate == 1


@pytest.mark.usefixtures("alone")
def test_a_task_left_out_has_the_mean_level_of_the_others_where_they_have_its_targets(uneven: pd.DataFrame) -> None:
    arms = STUDY.arms_of(uneven)
    qv = arms[arms["targets"] == "q,v"]
    own = qv.groupby(qv["task"].replace(STUDY.FAMILIES))["doublings"].mean()
    assert set(own.index) == {"trec", "rotten_tomatoes", "sms_spam", "snippets"}  # TREC's two label sets are one
    assert own["rotten_tomatoes"] == pytest.approx(-0.5, abs=1e-6)
    found = qv.groupby("task")["left_out"].mean()
    others = own[["trec", "rotten_tomatoes", "snippets"]].mean()
    assert found["sms_spam"] == pytest.approx(1.5 - others, abs=1e-6)
    assert found["trec_fine"] == pytest.approx(1.3 - own[["rotten_tomatoes", "sms_spam", "snippets"]].mean(), abs=1e-6)
    assert arms.loc[arms["targets"] == "q", "left_out"].isna().all()  # no other task has q alone


@pytest.mark.usefixtures("alone")
def test_a_law_that_misses_two_tasks_is_not_said_to_hold_there(frame: pd.DataFrame, uneven: pd.DataFrame) -> None:
    shares = []
    for runs in (frame, uneven):
        new = next(claim for claim in claims("rate_law", runs) if "nothing was fitted on" in claim.arm)
        shares.append(new.found.estimate)
    assert shares == [1, pytest.approx(1 / 6)]  # of the new tasks snippets alone is at the law's level


def test_other_studies_arms_are_read_and_full_fine_tunings_rate_is_beside_them(frame: pd.DataFrame) -> None:
    arms = STUDY.arms_of(frame)
    assert {"ratio", "rank", "rank_ratio", "low_data", "methods", "rate_law"} <= set(arms["study"])
    settings = ["task", "train_rows", "method", "init", "targets", "rank", "ratio", "s", "steps", "batch_size"]
    settings += ["model", "head_lr", "bias"]
    assert not arms.duplicated(settings).any()
    times = STUDY.times_full(arms)
    assert set(times["task"]) == {"trec", "rotten_tomatoes"}
    row = times[
        (times["task"] == "trec") & (times["targets"] == "q,v") & (times["rank"] == 8) & (times["s"] == 1)
    ].iloc[0]
    assert row["times"] == pytest.approx(48, rel=0.05)  # ratio's tuned rate over low_data's
    assert row["low"] < row["times"] < row["high"]


def test_the_figure_shows_every_arm_once_in_the_large_panel(frame: pd.DataFrame) -> None:
    arms = STUDY.arms_of(frame)
    with drawn("rate_law", frame) as figure:
        marks = [line for line in figure.axes[0].lines if line.get_linestyle() == "None"]
        assert sum(np.size(line.get_xdata()) for line in marks) == (arms["kind"] != "full").sum()
