"""best_ratio: the dots are the four best cells, the band all cells of the grid, and p counts the draws of four."""

from collections.abc import Iterator
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from tests.analysis.frames import claims, distinct, drawn, made, module, verdicts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BEST = module("best_ratio")
GRID = 2.0 ** np.array([[b - a for a in range(7)] for b in range(9)]).ravel()
SEEDS = "seed=0,1,2"
GROUPS = [("rotten_tomatoes", "A"), ("rotten_tomatoes", "B"), ("trec", "A"), ("trec", "B")]


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return made("best_ratio", distinct, SEEDS).sample(frac=1, random_state=0)


@pytest.fixture(scope="module")
def figure(frame: pd.DataFrame) -> Iterator["Figure"]:
    with drawn("best_ratio", frame) as found:
        yield found


def best_four(frame: pd.DataFrame, task: str, init: str) -> list[float]:
    """The ratios of the cells with the highest mean test accuracy, by hand, the best first."""
    own = frame[(frame["task"] == task) & (frame["lora.init"] == init)]
    cells = {cell: rows["test/accuracy"].to_list() for cell, rows in own.groupby(["optim.lr", "lora.ratio"])}
    assert len(cells) == 63 and {len(scores) for scores in cells.values()} == {3}
    ranked = sorted(cells, key=lambda cell: -sum(cells[cell]))
    return [float(np.asarray(cell)[1]) for cell in ranked[:4]]


def test_the_dots_are_the_ratios_of_the_four_best_cells_on_the_range_of_all(
    frame: pd.DataFrame, figure: "Figure"
) -> None:
    dots = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    bands = [band.get_paths()[0].get_extents() for band in figure.axes[0].collections]
    summary = BEST.summary(frame)
    for at, group in enumerate(GROUPS):
        four = best_four(frame, *group)
        assert np.asarray(dots[at].get_ydata()).tolist() == pytest.approx(four)
        low, high = np.quantile(np.log2(GRID), [0.025, 0.975])
        assert np.log2([bands[at].y0, bands[at].y1]) == pytest.approx([low, high], abs=1)  # draws of whole doublings
        row = summary.iloc[at]
        assert row["best ratios"] == ", ".join(f"{ratio:g}" for ratio in four)
        assert row["geometric mean"] == round(float(np.prod(four) ** 0.25), 2)
        assert row["of the grid"] == 2  # not 1: the grid's mean is not 1 either


def test_the_p_is_the_share_of_fours_as_far_from_the_grids_mean() -> None:
    cells = pd.DataFrame({"log2": np.log2([1.0, 64, 16, 4, 1, 1, 4, 16, 0.25, 0.25])})  # the best first
    found = BEST.excess(cells)
    means = np.array([np.mean(four) for four in combinations(cells["log2"], 4)]) - cells["log2"].mean()
    far = abs(np.mean(cells["log2"][:4]) - cells["log2"].mean())
    p = np.mean(np.abs(means) >= far - 1e-9)
    assert found.estimate == pytest.approx(far) and found.n == 4
    assert found.p == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / BEST.DRAWS)) and 0.05 < p < 0.5
    low, high = np.quantile(means, [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((far - high, far - low))


def by_ratio(sign: int) -> pd.DataFrame:
    """Accuracies that rise (fall) with the ratio for every seed and rate."""

    def score(run: dict[str, Any]) -> dict[str, Any]:
        return distinct(run) | {"test/accuracy": 0.5 + sign * 0.01 * np.log2(run["lora.ratio"])}

    return made("best_ratio", score, SEEDS)


@pytest.mark.parametrize(("sign", "verdict"), [(1, "held"), (-1, "contradicted in size")])
def test_the_claim_follows_what_was_built_in(sign: int, verdict: str) -> None:
    frame = by_ratio(sign)
    (claim,) = claims("best_ratio", frame)
    assert verdicts("best_ratio", frame) == [verdict] and claim.found.n == 4 * len(GROUPS)
    best = sorted(np.log2(GRID), reverse=sign > 0)[:4]
    assert claim.found.estimate == pytest.approx(np.mean(best) - 1)


def test_noise_alone_tells_nothing(frame: pd.DataFrame) -> None:
    assert verdicts("best_ratio", frame) == ["not identified"]


def test_a_cell_with_a_diverged_seed_is_never_among_the_best() -> None:
    frame = by_ratio(1)
    top = (frame["lora.ratio"] == 256) & (frame["seed"] == 0)
    frame = frame.assign(
        status=frame["status"].mask(top, "diverged"), **{"test/accuracy": frame["test/accuracy"].mask(top)}
    )
    assert set(BEST.summary(frame)["best ratios"]) == {"128, 128, 64, 64"}
