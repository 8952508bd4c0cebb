"""toy_mlp's rows are unique; pairs are selected on some seeds and compared on others."""

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from loralab.theory import mlp
from loralab.theory.plane import (
    ADVICE,
    ARMS,
    CURVE,
    EARLY,
    FULL,
    KEYS,
    LATE,
    OWN,
    SCORES,
    SMOKE,
    Size,
    choice,
    measured,
    off_lines,
    wanted,
)

train = partial(mlp.train, dtype=torch.float64)


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return measured(SMOKE)


def cells(frame: pd.DataFrame) -> list[str]:
    return sorted(str(row) for row in frame[[*KEYS]].itertuples(index=False, name=None))


def test_the_rows_are_those_that_are_wanted(rows: pd.DataFrame) -> None:
    assert list(rows) == [*KEYS, *SCORES]
    assert cells(rows) == cells(wanted(SMOKE)) and len(set(cells(rows))) == len(rows)


def test_the_full_size_is_the_papers_figure_and_six_widths() -> None:
    found = wanted(FULL)
    assert len(set(cells(found))) == len(found)
    paper = found[found["part"] == "plane"]
    assert set(paper["n"]) == {100} and paper.groupby("step").size().to_dict() == {EARLY: 46**2, LATE: 46**2}
    np.testing.assert_allclose(np.unique(paper["lr_A"]), np.logspace(-4, 1, 46), rtol=1e-5)
    others = found[found["part"] == "width"]
    pairs = {"": 144, "equal": 24, "advice": 24}
    wide = (32, 64, 128, 256, 512, 1024)
    assert others.groupby(["n", "arm"]).size().to_dict() == {(n, arm): pairs[arm] for n in wide for arm in pairs}
    for arm, ratio in (("equal", 1), ("advice", ADVICE)):
        line = others[others["arm"] == arm]
        np.testing.assert_allclose(line["lr_B"] / line["lr_A"], ratio, rtol=1e-5)
    curves = found[found["part"] == "curve"]
    assert sorted(set(curves["step"])) == list(CURVE) and len(curves) == len(ARMS) * (3 + 10) * len(CURVE)


@pytest.mark.parametrize("size", [FULL, SMOKE], ids=["full", "smoke"])
def test_fresh_seeds_are_fresh(size: Size) -> None:
    assert not set(size.fresh) & {*size.seeds, *size.width_seeds}
    assert size.n not in size.widths, "a width is told by n alone"
    assert {*CURVE} >= {EARLY, LATE}


def test_a_pairs_loss_is_the_mean_of_the_seeds_that_choose(rows: pd.DataFrame) -> None:
    for n, seeds, steps in ((SMOKE.n, SMOKE.seeds, (EARLY, LATE)), (8, SMOKE.width_seeds, (LATE,))):
        own = rows[rows["part"].isin(["plane", "width"]) & (rows["n"] == n)]
        assert own["seed"].isna().all()
        for step in steps:
            at = own[own["step"] == step]
            losses = train(at["lr_A"], at["lr_B"], (step,), n=n, seeds=seeds)
            for split in ("train", "test"):
                np.testing.assert_allclose(at[split], getattr(losses, split)[:, :, 0].mean(0), rtol=1e-5)
            one = np.isnan(losses.train[:, :, 0]).sum(0) == 1
            assert one.any() and at["train"].isna()[one].all(), "NaN where one seed diverged"


def test_curves_are_of_the_pairs_that_the_mean_chose_on_its_seeds_and_on_others(rows: pd.DataFrame) -> None:
    grid = rows[(rows["part"] == "plane") & (rows["step"] == LATE)]
    early = rows[(rows["part"] == "plane") & (rows["step"] == EARLY)]
    assert early["train"].argmin() != grid["train"].argmin(), "which step chooses makes a difference here"
    for arm in ARMS:
        some = grid if arm == "best" else grid[grid["lr_A"] == grid["lr_B"]]
        lowest = some.iloc[int(some["train"].argmin())]
        own = rows[(rows["part"] == "curve") & (rows["arm"] == arm)]
        assert set(own["chosen_A"]) == {lowest["lr_A"]} and set(own["chosen_B"]) == {lowest["lr_B"]}
        losses = train([lowest["lr_A"]], [lowest["lr_B"]], CURVE, n=SMOKE.n, seeds=[*SMOKE.seeds, *SMOKE.fresh])
        for split in ("train", "test"):
            found = own.sort_values(["seed", "step"])[split]
            np.testing.assert_allclose(found, getattr(losses, split)[:, 0].ravel(), rtol=1e-5)


def test_a_seeds_own_pairs_have_its_lowest_training_losses(rows: pd.DataFrame) -> None:
    assert SMOKE.every == 1
    line = np.array(SMOKE.rates)
    for n, seeds, step in ((SMOKE.n, SMOKE.fresh, EARLY), (SMOKE.n, SMOKE.fresh, LATE), (8, SMOKE.width_seeds, LATE)):
        grid = rows[rows["part"].isin(["plane", "width"]) & (rows["n"] == n) & (rows["step"] == step)]
        if n == SMOKE.n:
            # with the stored digits: at the edge of stability a rate's seventh digit changes a loss's fourth
            kept = [float(f"{ADVICE * rate:.6g}") for rate in line]
            advice = pd.DataFrame({"lr_A": line, "lr_B": kept, "arm": "advice"})
            grid = pd.concat([grid, advice], ignore_index=True)
        subsets = {
            "best": grid[grid["arm"] == ""],
            "equal": grid[grid["lr_A"] == grid["lr_B"]],
            "advice": grid[grid["arm"] == "advice"],
        }
        assert tuple(subsets) == OWN
        for arm, some in subsets.items():
            losses = train(some["lr_A"], some["lr_B"], (step,), n=n, seeds=seeds)
            at = np.nanargmin(losses.train[:, :, 0], 1)
            own = rows[(rows["part"] == "own") & (rows["n"] == n) & (rows["arm"] == arm) & (rows["step"] == step)]
            own = own.sort_values("seed")
            assert tuple(own["seed"]) == seeds
            for split in ("train", "test"):
                lowest = getattr(losses, split)[range(len(seeds)), at, 0]
                np.testing.assert_allclose(own[split], lowest, rtol=1e-5)
            np.testing.assert_allclose(own["chosen_A"], some["lr_A"].iloc[at], rtol=1e-5)
            np.testing.assert_allclose(own["chosen_B"], some["lr_B"].iloc[at], rtol=1e-5)


def test_what_diverged_is_not_chosen_and_a_line_gives_only_its_own_best() -> None:
    table: list[Any] = [(1, 1, 0.5), (1, 2, 0.3), (2, 2, 0.4), (3, 3, np.nan), (2, 1, 0.45)]
    arms = ["", "advice", "equal", "", ""]
    grid = pd.DataFrame(table, columns=["lr_A", "lr_B", "train"]).assign(other=[5, 4, 3, 2, 1], arm=arms)
    for each in (grid, grid.assign(arm=grid["arm"].replace("", None))):  # in memory, and as read from a CSV
        assert choice(each, "best")["train"] == 0.45 and choice(each, "equal")["train"] == 0.4
        assert choice(each, "advice")["train"] == 0.3 and choice(each, "equal", "other")["other"] == 2
        assert off_lines(each).index.tolist() == [0, 3, 4]
