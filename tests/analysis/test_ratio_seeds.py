"""ratio_seeds: rates are those that `ratio` selected, seeds are new, and the pooled gain is what was built in."""

from typing import Any

import pandas as pd
import pytest

from loralab.config.overrides import settings
from loralab.studies import committed
from loralab.studies.results import load_results
from loralab.studies.verdicts import verdicts
from loralab.sweeps.study import open_study
from tests.analysis.frames import distinct, drawn, made, module, unlike

SEEDS = module("ratio_seeds")
SETTING = ["task", "lora.init"]


def jobs(name: str) -> pd.DataFrame:
    with open_study(name) as study:
        return pd.DataFrame([settings(job) for job in study.grid])


def gained(points: float) -> pd.DataFrame:
    """λ = 16 beats λ = 1 by these points in the mean, and lowers the loss by a tenth of that in nats."""

    def score(run: dict[str, Any]) -> dict[str, Any]:
        level, noise = unlike({"seed": run["seed"]}, "level") / 20, 0.01 * (unlike(run, "noise") - 0.5)
        gain = points / 100 * (run["lora.ratio"] == 16)
        losses = {"test/loss": 0.5 - level - gain / 10 - noise}
        return distinct(run) | losses | {"test/accuracy": 0.8 + level + gain + noise, "correct": ""}

    return made("ratio_seeds", score, "seed=range(400,408)").sample(frac=1, random_state=0)


def test_rates_are_those_that_ratio_selected() -> None:
    frame = load_results("ratio")
    chosen = frame[frame["stage"] == "confirm"].groupby([*SETTING, "lora.ratio"])["optim.lr"].first()
    wanted = jobs("ratio_seeds").drop(columns="seed").drop_duplicates()
    assert len(wanted) == 12
    for _, job in wanted.iterrows():
        assert job["optim.lr"] == pytest.approx(chosen[*job[SETTING], job["lora.ratio"]])


def test_its_seeds_selected_nothing_and_are_none_of_ratio() -> None:
    mine = jobs("ratio_seeds")
    assert mine["seed"].nunique() == 40 and len(mine) == 480
    for name in committed.names():
        frame = load_results(name)
        if "confirm" in set(frame.get("stage", [])):
            selecting = frame if name == "ratio" else frame[frame["stage"] == "grid"]
            assert not set(selecting["seed"]) & set(mine["seed"]), name


@pytest.mark.parametrize(("points", "verdict"), [(2.0, "held"), (0.0, "equivalent"), (-2.0, "contradicted in size")])
def test_the_pooled_gain_is_what_was_built_in(points: float, verdict: str) -> None:
    (question,) = SEEDS.questions(gained(points))
    found = question.gains["λ = 16"]
    assert found.effect.estimate == pytest.approx(points / 100, abs=1e-3) and found.effect.n == 32
    assert verdicts([found.effect], papers=[question.number], margin=0.005) == [verdict]
    assert [*question.gains] == ["λ = 4", "λ = 16"]


def test_the_figure_has_each_settings_gain_and_the_pooled_one() -> None:
    frame = gained(1.0)
    with drawn("ratio_seeds", frame) as figure:
        accuracy, loss = figure.axes
        names = [label.get_text() for label in accuracy.get_yticklabels()]
        assert names == ["Rotten Tomatoes, A", "Rotten Tomatoes, B", "TREC, A", "TREC, B", "all, pooled"]
        for ax, metric, unit in ((accuracy, "test/accuracy", 0.01), (loss, "test/loss", 1.0)):
            for arm, gain in SEEDS.gains(frame, metric).items():
                (mark,) = [line for line in ax.lines if line.get_label() == arm]
                assert mark.get_xdata() == pytest.approx([gain.effect.estimate / unit])


def test_the_summary_has_the_differences_of_each_setting() -> None:
    frame = gained(2.0)
    table = SEEDS.summary(frame)
    assert len(table) == 12 and set(table["verdict"]) == {"", "equivalent", "held"}
    row = table[(table["task"] == "trec") & (table["init"] == "B") & (table["ratio"] == 16)].iloc[0]
    own = frame[(frame["task"] == "trec") & (frame["lora.init"] == "B")].pivot(
        index="seed", columns="lora.ratio", values="test/accuracy"
    )
    assert row["difference, points"] == f"{100 * (own[16] - own[1]).mean():+.2f}"
