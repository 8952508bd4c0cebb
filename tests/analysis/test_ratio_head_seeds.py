"""ratio_head_seeds: rates are those that ratio_head selected, and each head is compared with its own λ = 1."""

from typing import Any

import pandas as pd
import pytest

from loralab.config.overrides import settings
from loralab.studies.results import load_results
from loralab.sweeps.study import open_study
from tests.analysis.frames import distinct, drawn, made, module

HEADS = module("ratio_head_seeds")
RIDING = "${optim.lr}"


def scores(run: dict[str, Any]) -> dict[str, Any]:
    """λ = 16 is better by a point where the head rides with lr_A, and by none where it is pinned."""
    gain = 0.01 * (run["optim.head_lr"] == RIDING and run["lora.ratio"] == 16)
    return distinct(run) | {"test/accuracy": 0.8 + 1e-3 * (run["seed"] % 3) + gain, "correct": ""}


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return made("ratio_head_seeds", scores, "seed=range(400,406)").sample(frac=1, random_state=0)


def hashes(name: str, *overrides: str) -> set[str]:
    with open_study(name, overrides) as study:
        return {cell.run.rpartition("-")[2] for cell in study.cells()}


def test_rates_are_those_that_ratio_head_selected() -> None:
    rows = load_results("ratio_head")
    rows = rows[rows["stage"] == "confirm"].assign(head=rows["optim.head_lr"].astype(str))
    chosen = rows.groupby(["head", "lora.ratio"])["optim.lr"].unique()
    with open_study("ratio_head_seeds") as study:
        jobs = pd.DataFrame([settings(job) for job in study.grid])
    assert len(jobs) == 120
    for _, job in jobs.drop(columns="seed").drop_duplicates().iterrows():
        cell = (str(job["optim.head_lr"]), job["lora.ratio"])
        assert chosen[cell].tolist() == pytest.approx([job["optim.lr"]]), cell


def test_ratio_seeds_trains_the_pinned_half() -> None:
    pinned = hashes("ratio_seeds", "seed=400", "lora.ratio=1", "task=trec", "lora.init=A")
    assert len(pinned) == 1 and pinned < hashes("ratio_head_seeds", "seed=400", "lora.ratio=1")


def test_each_head_is_compared_with_its_own_equal_rates(frame: pd.DataFrame) -> None:
    table = HEADS.summary(frame).set_index(["head", "ratio"])["difference, points"]
    assert table["head at lr_A", 16] == "+1.00" and table["head at 4e-3", 16] == "+0.00"
    assert len(table) == 6


def test_the_figure_and_its_caption_have_both_heads_and_all_seeds(frame: pd.DataFrame) -> None:
    with drawn("ratio_head_seeds", frame) as figure:
        assert figure.axes
    assert "6 seeds" in HEADS.caption(frame) and len(HEADS.questions(frame)) == 1
