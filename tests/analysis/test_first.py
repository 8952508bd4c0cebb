"""The smallest analysis: the figure of `first` shows its table."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from loralab.studies.tables import Tables
from tests.analysis.frames import distinct, drawn, made, module

FIRST = module("first")
RATES, RATIOS, SEEDS = (2e-4, 8e-4, 3.2e-3), (1, 4, 16), (0, 1)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return made("first", distinct).sample(frac=1, random_state=0)


def heatmap(frame: pd.DataFrame) -> tuple[Any, list[str], list[list[str]]]:
    """The cells (ratio, lr), their texts, and the tick labels."""
    with drawn("first", frame) as figure:
        axes = figure.axes[0]
        (image,) = axes.images
        ticks = [[label.get_text() for label in labels] for labels in (axes.get_xticklabels(), axes.get_yticklabels())]
        return image.get_array(), [text.get_text() for text in axes.texts], ticks


def loss(frame: pd.DataFrame, ratio: float, lr: float, seed: int) -> float:
    row = frame[(frame["lora.ratio"] == ratio) & (frame["optim.lr"] == lr) & (frame["seed"] == seed)]
    return float(row["validation/loss"].item())


def test_what_is_drawn_is_the_means_of_the_table(frame: pd.DataFrame) -> None:
    cells, texts, ticks = heatmap(frame)
    means = [np.mean([loss(frame, ratio, lr, seed) for seed in SEEDS]) for ratio in RATIOS for lr in RATES]
    np.testing.assert_allclose(cells.ravel(), means, rtol=1e-9)
    assert texts == [f"{mean:.3f}" for mean in means]
    assert ticks == [["2e-4", "8e-4", "3.2e-3"], ["1", "4", "16"]]
    np.testing.assert_allclose(FIRST.summary(frame).to_numpy().ravel(), means, rtol=1e-9)


@pytest.mark.parametrize("seeds", [(1,), SEEDS])
def test_a_cell_with_a_diverged_run_says_so(frame: pd.DataFrame, seeds: tuple[int, ...]) -> None:
    spoilt = (frame["optim.lr"] == RATES[1]) & (frame["lora.ratio"] == 4) & frame["seed"].isin(seeds)
    gone = frame.assign(**{"validation/loss": frame["validation/loss"].mask(spoilt)})
    texts = heatmap(gone.assign(status=gone["status"].mask(spoilt, "diverged")))[1]
    assert texts[4] == "diverged" and texts.count("diverged") == 1


def test_what_is_reduced_has_a_row_for_each_run_and_the_columns_to_draw_from(frame: pd.DataFrame) -> None:
    found = FIRST.reduce(Tables(frame.assign(run="a", device="cpu"), pd.DataFrame(), Path()))
    pd.testing.assert_frame_equal(found, frame)


def test_an_example_makes_no_claim_and_its_caption_promises_no_interval(frame: pd.DataFrame) -> None:
    assert "mean of 2 seeds, no interval" in FIRST.caption(frame)
