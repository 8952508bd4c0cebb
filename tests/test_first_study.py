"""Laws of the analyses: each study has its own, and what `first` draws is what its table says."""

import importlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest

from loralab.results import Tables
from loralab.study import studies

matplotlib.use("Agg")
RATES, RATIOS, SEEDS = (2e-4, 8e-4), (1, 4, 16), (0, 1)


@pytest.fixture
def first() -> Iterator[ModuleType]:
    from matplotlib import pyplot

    yield importlib.import_module("analysis.first")
    pyplot.close("all")


@pytest.fixture
def runs() -> pd.DataFrame:
    """A loss of its own for each cell and seed, in no order."""
    cells = [(lr, ratio, seed) for lr in RATES for ratio in RATIOS for seed in SEEDS]
    table = pd.DataFrame(cells, columns=["optim.lr", "lora.ratio", "seed"])
    table["validation/loss"] = np.linspace(0.3, 0.7, len(cells)) ** 2
    return table.assign(hash="0123456789", status="success", step=100.0).sample(frac=1, random_state=0)


def drawn(first: ModuleType, runs: pd.DataFrame) -> tuple[Any, list[str]]:
    """The cells of the heatmap (ratio, lr) and what is written in them, row by row."""
    axes = first.draw(runs).axes[0]
    (image,) = axes.images
    return image.get_array(), [text.get_text() for text in axes.texts]


@pytest.mark.parametrize("name", studies())
def test_every_study_has_an_analysis_that_reduces_and_draws(name: str) -> None:
    module = importlib.import_module(f"analysis.{name.replace('/', '.')}")
    assert callable(module.reduce) and callable(module.draw)


def test_what_is_reduced_has_a_row_for_each_run_and_the_columns_to_draw_from(
    first: ModuleType, runs: pd.DataFrame
) -> None:
    found = first.reduce(Tables(runs, pd.DataFrame()))
    assert found["validation/loss"].tolist() == runs["validation/loss"].tolist()
    assert set(found) == {"hash", "optim.lr", "lora.ratio", "seed", "status", "validation/loss"}
    first.draw(found)


def test_what_is_drawn_is_the_means_of_the_table(first: ModuleType, runs: pd.DataFrame) -> None:
    cells, texts = drawn(first, runs)
    by_cell = runs.groupby(["lora.ratio", "optim.lr"])["validation/loss"]
    means = [by_cell.get_group((ratio, lr)).mean() for ratio in RATIOS for lr in RATES]
    np.testing.assert_allclose(cells.ravel(), means, rtol=1e-12)
    assert texts == [f"{mean:.3f}" for mean in means]
    axes = first.draw(runs).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == [f"{lr:g}" for lr in RATES]
    assert [label.get_text() for label in axes.get_yticklabels()] == [f"{ratio}" for ratio in RATIOS]
    assert f"mean of {len(SEEDS)} seeds" in axes.get_title()


def cell(runs: pd.DataFrame, seeds: tuple[int, ...]) -> "pd.Series[bool]":
    """Which rows are the cell lr=8e-4, ratio=4, of these seeds."""
    return (runs["optim.lr"] == RATES[1]) & (runs["lora.ratio"] == 4) & runs["seed"].isin(seeds)


def without_loss(runs: pd.DataFrame, seeds: tuple[int, ...], status: str) -> pd.DataFrame:
    """The table with these runs of the cell in that state."""
    spoilt = cell(runs, seeds)
    return runs.assign(
        **{"status": runs["status"].mask(spoilt, status), "validation/loss": runs["validation/loss"].mask(spoilt)}
    )


@pytest.mark.parametrize("seeds", [(1,), SEEDS])
def test_a_cell_with_a_diverged_run_says_so(first: ModuleType, runs: pd.DataFrame, seeds: tuple[int, ...]) -> None:
    texts = drawn(first, without_loss(runs, seeds, "diverged"))[1]
    assert texts[3] == "diverged" and texts.count("diverged") == 1


def test_a_run_that_is_not_done_is_named_and_nothing_is_drawn(first: ModuleType, runs: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match=r"not done: .*0\.0008, 'lora.ratio': 4, 'seed': 1, 'status': 'missing'"):
        first.draw(without_loss(runs, (1,), "missing"))


@pytest.mark.parametrize("seeds", [(1,), SEEDS])
def test_a_row_that_is_not_there_is_named_too(first: ModuleType, runs: pd.DataFrame, seeds: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"0\.0008"):
        first.draw(runs[~cell(runs, seeds)])
