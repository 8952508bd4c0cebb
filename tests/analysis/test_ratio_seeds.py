"""ratio_seeds and the studies of its analysis: rates were selected before, seeds are new, fresh runs are compared."""

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from loralab.config.overrides import settings
from loralab.studies import study_module
from loralab.studies.results import load_results
from loralab.sweeps.study import open_study
from tests.analysis.frames import distinct, drawn, made, module, unlike

SEEDS = module("ratio_seeds")
SETTING = ["task", "lora.init"]


def jobs(name: str) -> pd.DataFrame:
    with open_study(name) as study:
        return pd.DataFrame([settings(job) for job in study.grid])


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """λ = 16 beats λ = 1 by two points in the mean."""

    def score(run: dict[str, Any]) -> dict[str, Any]:
        level, noise = unlike({"seed": run["seed"]}, "level") / 20, 0.01 * (unlike(run, "noise") - 0.5)
        gain = 0.02 * (run["lora.ratio"] == 16)
        return distinct(run) | {"test/accuracy": 0.8 + level + gain + noise, "correct": ""}

    return made("ratio_seeds", score, "seed=range(400,408)").sample(frac=1, random_state=0)


@pytest.mark.parametrize(
    ("name", "before", "arms"), [("ratio_seeds", "ratio", 12), ("ratio_imdb_seeds", "ratio_imdb", 3)]
)
def test_rates_are_those_that_the_study_before_selected(name: str, before: str, arms: int) -> None:
    rows, keys = load_results(before), [key for key in SETTING if key in jobs(name)]
    chosen = rows[rows["stage"] == "confirm"].groupby([*keys, "lora.ratio"])["optim.lr"].unique()
    wanted = jobs(name).drop(columns="seed").drop_duplicates()
    assert len(wanted) == arms
    for _, job in wanted.iterrows():
        cell = tuple(job[[*keys, "lora.ratio"]])
        assert chosen[cell if keys else cell[0]].tolist() == pytest.approx([job["optim.lr"]]), cell


def test_its_seeds_selected_nothing_and_are_none_of_ratio() -> None:
    mine = jobs("ratio_seeds")
    assert mine["seed"].nunique() == 20 and len(mine) == 240
    for path in (study_module.ANALYSIS / "results").glob("*.csv"):
        rows = pd.read_csv(path, usecols=lambda name: name in ("seed", "stage"))
        if "confirm" in set(rows.get("stage", [])):
            selecting = rows if path.stem == "ratio" else rows[rows["stage"] == "grid"]
            assert not set(selecting["seed"]) & set(mine["seed"]), path


def test_the_pooled_gain_is_what_was_built_in(frame: pd.DataFrame) -> None:
    question = replace(SEEDS.questions(frame)[0], margin=0.005)
    found = {claim.arm: claim.found for claim in question.claims}["λ = 16"]
    assert found.estimate == pytest.approx(0.02, abs=1e-3) and found.n == 32
    assert question.verdicts[[claim.arm for claim in question.claims].index("λ = 16")] == "held"


def test_the_summary_has_the_differences_of_each_setting(frame: pd.DataFrame) -> None:
    table = SEEDS.summary(frame)
    assert len(table) == 12
    row = table[(table["task"] == "trec") & (table["init"] == "B") & (table["ratio"] == 16)].iloc[0]
    own = frame[(frame["task"] == "trec") & (frame["lora.init"] == "B")]
    scores = own.pivot(index="seed", columns="lora.ratio", values="test/accuracy")
    assert row["difference, points"] == f"{100 * (scores[16] - scores[1]).mean():+.2f}"


def test_the_figure_has_every_setting_and_the_caption_its_seeds(frame: pd.DataFrame) -> None:
    with drawn("ratio_seeds", frame) as figure:
        names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {"Rotten Tomatoes, init A", "TREC, init B", "pooled"} <= set(names)
    assert "that an earlier study selected" in SEEDS.caption(frame) and "8 fresh seeds" in SEEDS.caption(frame)


def test_of_two_stages_the_second_is_compared() -> None:
    rows = made("ratio_fine", lambda run: distinct(run) | {"correct": ""})
    assert len(rows) == 15 + 60 and set(SEEDS.fresh(rows)["seed"]) == set(range(400, 420))
    assert "the best rate of its own window" in SEEDS.caption(rows) and len(SEEDS.summary(rows)) == 3
