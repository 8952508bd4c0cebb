"""batch: built-in penalties and a built-in growth of the rate are found, and the figure shows the windows' best."""

import functools
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.analysis.frames import claims, distinct, drawn, made, module, unlike, verdicts

BATCH = module("batch")
RISE = {BATCH.LORA: 0.04, BATCH.PLUS: 0.02, BATCH.FULL: 0.01}  # nats per doubling of the batch
RATE = {BATCH.LORA: 5.9e-3, BATCH.PLUS: 1.5e-3, BATCH.FULL: 1.4e-4}  # at a batch of 32


@functools.cache
def built(noise: float = 0.0, power: float = 0.5) -> pd.DataFrame:
    """Losses are parabolas around RATE (batch / 32)^power; their lowest rises by RISE per doubling."""

    def score(run: dict[str, Any]) -> dict[str, Any]:
        arm = BATCH.FULL if run["method"] == "full" else BATCH.LORA if run["lora.ratio"] == 1 else BATCH.PLUS
        doublings = np.log2(run["train.batch_size"] / 32)
        away = np.log2(run["optim.lr"] / RATE[arm]) - power * doublings
        level = 0.4 + RISE[arm] * doublings + run["seed"] / 10
        return distinct(run) | {"validation/loss": level + away**2 / 20 + noise * unlike(run, "noise")}

    return made("batch", score)


def test_the_windows_have_the_rates_that_were_built_in() -> None:
    found = BATCH.windows(built())
    assert len(found) == 2 * (3 * 2 + 2) + 3 * 2
    wanted = np.log2(found["arm"].map(RATE)) + 0.5 * np.log2(found["batch"] / 32)
    assert found["tuned"].tolist() == pytest.approx(wanted.tolist())
    summary = BATCH.summary(built())
    assert len(summary) == 13 and summary["interior"].all()
    assert (summary["batch"] * summary["steps"] == 3200).all()


def test_the_claims_follow_what_was_built_in() -> None:
    frame = built(noise=1e-3)
    estimates = [claim.found.estimate for claim in claims("batch", frame)]
    assert estimates == pytest.approx([0.03, 0.02, 0.5], abs=0.01)
    assert verdicts("batch", frame) == ["equivalent", "equivalent", "held"]  # .03 and .02, of a margin of .05


def test_seeds_have_levels_of_their_own() -> None:
    found = BATCH.windows(built())
    moved = found.assign(lowest=found["lowest"] + found["seed"])  # the second seed is a nat higher
    assert BATCH.penalty(moved, BATCH.LORA).estimate == pytest.approx(BATCH.penalty(found, BATCH.LORA).estimate)


def test_a_rate_at_the_end_of_a_window_is_no_tuned_rate() -> None:
    found = BATCH.windows(built(power=3.0))
    ends = found[found["batch"] != 32]
    assert ends["tuned"].isna().all() and found["tuned"].notna().sum() == 6


def test_the_figure_shows_the_lowest_losses_and_the_tuned_rates() -> None:
    frame = built(noise=5e-3)
    found = BATCH.windows(frame)
    with drawn("batch", frame) as figure:
        left, right = figure.axes
        for arm, colour in BATCH.COLOURS.items():
            own = found[found["arm"] == arm]
            at_32 = 2 ** own[own["batch"] == 32].set_index("seed")["tuned"]
            relative = 2 ** own["tuned"] / own["seed"].map(at_32)
            for ax, values in ((left, own["lowest"]), (right, relative)):
                lines = [line for line in ax.lines if line.get_color() == colour]
                shown = [value for line in lines for value in np.asarray(line.get_ydata())]
                assert sorted(shown) == pytest.approx(sorted(values))
                assert len(np.asarray(lines[0].get_xdata())) == own["batch"].nunique()  # a line through all batches
