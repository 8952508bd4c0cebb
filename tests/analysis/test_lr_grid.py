"""lr_grid: the heatmaps are means over the seeds, and the marks are on the right cells."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tests.analysis.frames import distinct, drawn, made, module, unlike

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LR_GRID = module("lr_grid")
PANELS = ("validation/accuracy", "test/accuracy", "train/loss", "validation/loss")
ROWS = [(task, init) for task in ("rotten_tomatoes", "trec") for init in "AB"]
LR_A = [5e-5, 2e-4, 8e-4, 3.2e-3, 1.28e-2, 5.12e-2]
LR_B = [2e-4, 8e-4, 3.2e-3, 1.28e-2, 5.12e-2, 0.2048]
GONE = {"task": "trec", "lora.init": "A", "optim.lr": 3.2e-3, "lora.ratio": 4, "seed": 2}


def scores(run: dict[str, Any]) -> dict[str, Any]:
    """A unique number in each cell. One run diverged; the other two seeds of its cell are the best of all."""
    if run.items() >= GONE.items():
        return {"status": "diverged", **dict.fromkeys(PANELS)}
    if run.items() >= {**GONE, "seed": run["seed"]}.items():
        return {name: 0.95 if name.endswith("accuracy") else 0.05 for name in PANELS}
    return distinct(run)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return made("lr_grid", scores).sample(frac=1, random_state=0)


@pytest.fixture(scope="module")
def figure(frame: pd.DataFrame) -> Iterator["Figure"]:
    with drawn("lr_grid", frame) as found:
        yield found


def panels(figure: "Figure") -> Iterator[tuple[str, str, str, "Axes"]]:
    """Task, init, metric and axes of each heatmap; the colour bars follow."""
    for at, (task, init) in enumerate(ROWS):
        for column, metric in enumerate(PANELS):
            yield task, init, metric, figure.axes[len(PANELS) * at + column]


def means(frame: pd.DataFrame, task: str, init: str, metric: str) -> Any:
    """Means by (lr_B, lr_A), computed by hand; NaN if a seed diverged."""
    own = frame[(frame["task"] == task) & (frame["lora.init"] == init)]
    found = np.full((6, 6), np.nan)
    for (at_b, at_a), _ in np.ndenumerate(found):
        cell = own[(own["optim.lr"] == LR_A[at_a]) & np.isclose(own["lora.ratio"], LR_B[at_b] / LR_A[at_a], rtol=1e-3)]
        assert len(cell) == 3
        found[at_b, at_a] = cell[metric].sum() / 3 if cell[metric].notna().all() else np.nan
    return found


def marks(ax: "Axes") -> list[set[tuple[int, int]]]:
    """The positions of the dots, the star and the ring, as (lr_B, lr_A)."""
    return [{(int(y), int(x)) for x, y in np.asarray(mark.get_offsets())} for mark in ax.collections]


def test_what_is_drawn_is_the_means_of_the_seeds_and_a_diverged_cell_is_empty(
    frame: pd.DataFrame, figure: "Figure"
) -> None:
    empty, grey = 0, []
    for task, init, metric, ax in panels(figure):
        (image,) = ax.images
        array: Any = np.ma.filled(np.ma.asarray(image.get_array()), np.nan)
        np.testing.assert_allclose(array, means(frame, task, init, metric), rtol=1e-9)
        empty += int(np.isnan(array).sum())
        patches: list[Any] = list(ax.patches)
        grey += [patch.get_center() for patch in patches]
    assert empty == len(PANELS) and np.array(grey).tolist() == [[3, 3]] * len(PANELS)  # lr_A 3.2e-3, ratio 4
    first = figure.axes[-len(PANELS) * (len(ROWS) + 1)]
    assert [label.get_text() for label in first.get_yticklabels()] == [
        "2e-4", "8e-4", "3.2e-3", "1.28e-2", "5.12e-2", "0.205",
    ]  # fmt: skip


def test_star_ring_and_dots_stand_on_the_cells_that_they_name(frame: pd.DataFrame, figure: "Figure") -> None:
    for task, init, metric, ax in panels(figure):
        found, loss = means(frame, task, init, metric), metric.endswith("loss")
        best = np.nanmin(found) if loss else np.nanmax(found)
        equal = [(i, i + 1) for i in range(5)]  # lr_B starts a step above lr_A
        ring = (min if loss else max)(equal, key=lambda at: found[at])
        near = found <= best * 1.01 if loss else found >= best - 0.01
        dots = {(int(b), int(a)) for b, a in np.argwhere(near)}
        star = {(int(b), int(a)) for b, a in np.argwhere(found == best)}
        assert marks(ax) == [dots, star, {ring}], (task, init, metric)
        (diagonal,) = ax.lines
        across: Any = diagonal.get_data()
        assert np.transpose(across).tolist() == [[a, b] for b, a in equal]


def plane(best: tuple[float, float]) -> pd.DataFrame:
    """A grid of 3 x 3 rates whose losses rise by 1 a step away from one cell."""
    rates = [1.0, 4.0, 16.0]
    rows = [(a, b, 0.5 + abs(np.log(a / best[0])) + abs(np.log(b / best[1]))) for a in rates for b in rates]
    return pd.DataFrame(rows, columns=["optim.lr", "lr_B", "validation/loss"]).assign(error=0.01)


@pytest.mark.parametrize(("at", "inside"), [((4.0, 4.0), True), ((1.0, 4.0), False), ((4.0, 16.0), False)])
def test_a_best_cell_at_an_edge_of_either_axis_is_not_interior(at: tuple[float, float], inside: bool) -> None:
    of = plane(at)
    assert LR_GRID.interior(of, LR_GRID.best(of, "validation/loss")) is inside


@pytest.mark.parametrize(("error", "inside"), [(1.3, False), (1.4, True), (np.nan, False)])
def test_a_tie_within_a_standard_error_settles_an_edge(error: float, inside: bool) -> None:
    of = plane((1.0, 4.0)).assign(error=error)  # the inner cell is worse by log 4 = 1.386
    assert LR_GRID.interior(of, LR_GRID.best(of, "validation/loss")) is inside


def test_the_summary_names_the_marked_cells_and_the_claim_is_their_paired_difference(frame: pd.DataFrame) -> None:
    summary, claims = LR_GRID.summary(frame), LR_GRID.claims(frame)
    assert len(summary) == 2 * len(claims) == 2 * len(ROWS)
    for at, (task, init) in enumerate(ROWS):
        found = means(frame, task, init, "validation/loss")
        scores = []
        for row, among in (
            (summary.iloc[2 * at], np.ones((6, 6))),
            (summary.iloc[2 * at + 1], np.eye(6, k=1)),
        ):
            b, a = np.unravel_index(np.nanargmin(np.where(among, found, np.nan)), found.shape)
            assert (row["lr_A"], row["lr_B"]) == (LR_A[a], LR_B[b])
            own = frame[(frame["task"] == task) & (frame["lora.init"] == init) & (frame["optim.lr"] == LR_A[a])]
            cell = own[np.isclose(own["lora.ratio"], row["ratio"])].sort_values("seed")
            assert row["validation/loss"] == round(cell["validation/loss"].mean(), 4)
            scores.append(cell["test/accuracy"])
        test, claimed = stats.ttest_rel(*scores), claims[at].found
        assert claimed.estimate == pytest.approx(scores[0].mean() - scores[1].mean())
        assert np.isnan(claimed.p)  # the selection seeds give no valid test
        assert (claimed.low, claimed.high) == pytest.approx(tuple(test.confidence_interval(0.95)))


def test_a_pair_that_is_better_by_a_point_is_found() -> None:
    def better(run: dict[str, Any]) -> dict[str, Any]:
        far = abs(np.log2(run["optim.lr"] / 8e-4)) + abs(np.log2(run["optim.lr"] * run["lora.ratio"] / 1.28e-2))
        noise = 1e-3 * unlike(run, "noise")
        return {name: 0.8 - far / 200 + noise if name.endswith("accuracy") else 0.5 + far / 50 for name in PANELS}

    frame = made("lr_grid", better)
    summary = LR_GRID.summary(frame)
    best = summary[summary["cell"] == "best"]
    assert set(best["lr_A"]) == {8e-4} and set(best["ratio"]) == {16} and best["interior"].all()
    for claim in LR_GRID.claims(frame):  # equal rates are 4 doublings away everywhere: 2 points
        assert claim.found.estimate == pytest.approx(0.02, abs=1e-3) and claim.found.low > 0
