"""rank_ratio: a built-in best ratio is found at each rank, and the figure shows the fit's interval."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from loralab.studies.minima import seed_minimum
from loralab.studies.ratios import optimum
from tests.analysis.frames import claims, distinct, drawn, made, marks, module, unlike, verdicts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RANK = module("rank_ratio")
RANKS, RATIOS, FRESH = (1, 4, 8, 16, 64), (1, 2, 4, 8, 16, 64), range(100, 105)


def best_at(log2: float, noise: float = 1e-3) -> pd.DataFrame:
    """A study whose test loss is a parabola in log2 of the ratio, with an offset for each seed, and noise."""

    def score(run: dict[str, Any]) -> dict[str, Any]:
        level = unlike({"seed": run["seed"]}, "level") / 10
        away = (np.log2(run["lora.ratio"]) - log2) ** 2 / 500
        return distinct(run) | {"test/loss": 0.4 + level + away + noise * (unlike(run, "noise") - 0.5)}

    return made("rank_ratio", score)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return best_at(2.0, noise=0.02)


@pytest.fixture(scope="module")
def figure(frame: pd.DataFrame) -> Iterator["Figure"]:
    with drawn("rank_ratio", frame) as found:
        yield found


def losses(frame: pd.DataFrame, rank: int) -> Any:
    """Losses by (seed, ratio), computed by hand."""
    own = frame[(frame["stage"] == "confirm") & (frame["lora.rank"] == rank)]
    cell = own.set_index(["seed", "lora.ratio"])["test/loss"]
    assert len(cell) == len(FRESH) * len(RATIOS)
    return np.array([[cell[seed, ratio] for ratio in RATIOS] for seed in FRESH])


def test_the_differences_from_equal_rates_are_drawn_for_each_rank(frame: pd.DataFrame, figure: "Figure") -> None:
    found = marks(figure.axes[1], across=True)
    assert [label for label, *_ in found] == [f"rank {rank}" for rank in RANKS]
    for rank, (_, _, values, ends) in zip(RANKS, found, strict=True):
        table = losses(frame, rank)
        for column, x, bar in zip(table.T[1:], values, ends, strict=True):
            assert x == pytest.approx((column - table[:, 0]).mean())
            assert bar == pytest.approx(list(stats.ttest_rel(column, table[:, 0]).confidence_interval(0.95)))


def test_the_lowest_points_and_their_intervals_are_drawn(frame: pd.DataFrame, figure: "Figure") -> None:
    for place, (rank, mark) in enumerate(zip(RANKS, marks(figure.axes[2], across=True), strict=True)):
        fit = seed_minimum(np.log2(RATIOS), losses(frame, rank))
        assert fit.interior and mark[1] == [place] and mark[2] == pytest.approx([2**fit.at])
        tried = (RATIOS[0], RATIOS[-1])
        assert mark[3][0] == pytest.approx(np.clip([2**fit.low, 2**fit.high], *tried))
        row = [line for line in figure.axes[2].lines if place in np.atleast_1d(line.get_ydata())]
        arrows = {str(line.get_marker()) for line in row} & {"<", ">"}
        beyond = {"<": 2**fit.low < tried[0], ">": 2**fit.high > tried[1]}
        assert arrows == {mark for mark, there in beyond.items() if there}


@pytest.mark.parametrize("log2", [2.0, 3.2])
def test_the_ratio_that_is_best_is_found_at_each_rank(log2: float) -> None:
    frame = best_at(log2)
    for rank in RANKS:
        found = optimum(frame[frame["lora.rank"] == rank])
        assert found.at == pytest.approx(log2, abs=0.1) and found.low - 0.05 < log2 < found.high + 0.05
    pooled = claims("rank_ratio", frame)[-1]
    assert pooled.found.estimate == pytest.approx(log2, abs=0.1) and pooled.found.n == 25
    assert verdicts("rank_ratio", frame)[-1] == "held"
    tried = {2.0: 4, 3.2: 8}[log2]  # the nearest
    assert RANK.summary(frame)["best ratio tried"].tolist() == [tried] * 5


def test_a_best_ratio_near_1_is_equivalent_and_lies_outside_the_ratios(frame: pd.DataFrame) -> None:
    below = best_at(-0.5)
    assert verdicts("rank_ratio", below)[-1] == "equivalent"
    with drawn("rank_ratio", below) as figure:
        assert all(values[0] < 1 for _, _, values, _ in marks(figure.axes[2], across=True))


def test_noise_alone_identifies_no_gain_over_the_ranks(frame: pd.DataFrame) -> None:
    gains = claims("rank_ratio", frame)[:-1]
    assert [claim.arm for claim in gains] == ["λ = 16", "λ = 2", "λ = 4", "λ = 8", "λ = 64"]
    assert verdicts("rank_ratio", frame)[:-1] == ["not identified"] * 5  # accuracies from .4 to .9


def test_what_the_best_ratio_gains_is_its_loss_less_that_of_equal_rates(frame: pd.DataFrame) -> None:
    table = losses(frame, 8)
    row = RANK.summary(frame).set_index("rank").loc[8]
    best = int(table.mean(axis=0).argmin())
    assert row["best ratio tried"] == RATIOS[best] != 1
    found = stats.ttest_rel(table[:, best], table[:, 0])
    ends = found.confidence_interval()
    less = f"{(table[:, best] - table[:, 0]).mean():.4f} [{ends.low:.4f}, {ends.high:.4f}]"
    assert row["best less λ = 1"] == less


def test_a_diverged_fresh_run_leaves_a_ratio_without_mean_and_a_rank_without_fit_and_the_rest_stands(
    frame: pd.DataFrame,
) -> None:
    gone = (frame["stage"] == "confirm") & (frame["lora.rank"] == 8) & (frame["seed"] == 101)
    gone &= frame["lora.ratio"] == 4
    spoilt = frame.assign(status=frame["status"].mask(gone, "diverged"), **{"test/loss": frame["test/loss"].mask(gone)})
    assert int(gone.sum()) == 1
    row = RANK.summary(spoilt).set_index("rank").loc[8]
    assert np.isnan(row["λ = 4"]) and row["λ = 16"] == round(float(losses(frame, 8)[:, 4].mean()), 4)
    assert np.isnan(claims("rank_ratio", spoilt)[-1].found.estimate)
    with drawn("rank_ratio", spoilt) as figure:
        values = marks(figure.axes[1], across=True)[2][2]
        assert np.isnan(values).tolist() == [False, True, False, False, False]
