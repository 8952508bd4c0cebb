"""lr_grid: the heatmaps are means over the seeds, and the numbers and marks are on the right cells."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tests.analysis.frames import claims, distinct, drawn, made, module, unlike, verdicts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LR_GRID = module("lr_grid")
SCORES = ("validation/accuracy", "test/accuracy", "train/loss", "validation/loss")
SEEDS = "seed=0,1,2"  # the committed grid has one
PLANES = [("rotten_tomatoes", "A"), ("rotten_tomatoes", "B"), ("trec", "A"), ("trec", "B")]
LR_A = [4e-4 * 2**at for at in range(7)]
LR_B = [4e-4 * 2**at for at in range(9)]
GONE = {"task": "trec", "lora.init": "A", "optim.lr": 3.2e-3, "lora.ratio": 4, "seed": 2}


def scores(run: dict[str, Any]) -> dict[str, Any]:
    """A unique number in each cell. One run diverged; the other two seeds of its cell are the best of all."""
    if run.items() >= GONE.items():
        return {"status": "diverged", **dict.fromkeys(SCORES)}
    if run.items() >= {**GONE, "seed": run["seed"]}.items():
        return {name: 0.95 if name.endswith("accuracy") else 0.05 for name in SCORES}
    return distinct(run)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return made("lr_grid", scores, SEEDS).sample(frac=1, random_state=0)


@pytest.fixture(scope="module")
def figure(frame: pd.DataFrame) -> Iterator["Figure"]:
    with drawn("lr_grid", frame) as found:
        yield found


def panels(figure: "Figure") -> Iterator[tuple[str, str, "Axes"]]:
    """Task, init and axes of each heatmap; the colour bar follows."""
    for (task, init), ax in zip(PLANES, (ax for ax in figure.axes[:-1] if ax.images), strict=True):
        yield task, init, ax


def means(frame: pd.DataFrame, task: str, init: str) -> Any:
    """Mean validation losses by (lr_B, lr_A), computed by hand; NaN if a seed diverged."""
    own = frame[(frame["task"] == task) & (frame["lora.init"] == init)]
    found = np.full((9, 7), np.nan)
    for (at_b, at_a), _ in np.ndenumerate(found):
        cell = own[(own["optim.lr"] == LR_A[at_a]) & np.isclose(own["lora.ratio"], LR_B[at_b] / LR_A[at_a], rtol=1e-3)]
        assert len(cell) == 3
        losses = cell["validation/loss"]
        found[at_b, at_a] = losses.sum() / 3 if losses.notna().all() else np.nan
    return found


def boxes(ax: "Axes", *, filled: bool) -> set[tuple[int, int]]:
    """The cells (lr_B, lr_A) with a grey patch, or with a border."""
    patches: list[Any] = list(ax.patches)
    return {
        (round(p.get_center()[1]), round(p.get_center()[0])) for p in patches if (p.get_facecolor()[3] > 0) == filled
    }


def test_a_panel_is_the_means_above_its_lowest_on_one_scale(frame: pd.DataFrame, figure: "Figure") -> None:
    scales = set()
    for task, init, ax in panels(figure):
        (image,) = ax.images
        array: Any = np.ma.filled(np.ma.asarray(image.get_array()), np.nan)
        by_hand = means(frame, task, init)
        np.testing.assert_allclose(array, by_hand - np.nanmin(by_hand), atol=1e-9)
        norm: Any = image.norm
        scales.add(tuple(norm.boundaries))
        assert [label.get_text() for label in ax.get_yticklabels()] == [f"{4 * 2**at}" for at in range(9)]
        lost = np.nanmin([by_hand[at, at] for at in range(7)]) - np.nanmin(by_hand)
        assert f"nearly equal rates lose {LR_GRID._decimal(lost)} nats" in ax.get_title(loc="left")
    assert scales == {LR_GRID.LEVELS}


def test_the_numbers_are_those_of_the_cells_and_a_diverged_one_has_a_dash(
    frame: pd.DataFrame, figure: "Figure"
) -> None:
    for task, init, ax in panels(figure):
        above = means(frame, task, init)
        above -= np.nanmin(above)
        texts = {(round(text.get_position()[1]), round(text.get_position()[0])): text.get_text() for text in ax.texts}
        assert len(texts) == 62  # the best has a star
        for at, text in texts.items():
            assert text == "-" if np.isnan(above[at]) else float(text) == pytest.approx(above[at], abs=0.006)
        assert {text.get_fontsize() for text in ax.texts} == {8}


def test_a_contour_goes_round_more_than_one_cell_in_a_corner(figure: "Figure") -> None:
    for _, _, ax in panels(figure):
        contours = [line for line in ax.lines if line.get_color() == "black" and line.get_linestyle() == "-"]
        assert len(contours) > 1 and not [line for line in contours if np.size(line.get_xdata()) in (1, 2)]


def test_star_and_box_stand_on_the_best_cells_and_grey_on_rates_that_are_too_high(
    frame: pd.DataFrame, figure: "Figure"
) -> None:
    for task, init, ax in panels(figure):
        found = means(frame, task, init)
        (star,) = [mark for mark in ax.collections if mark.get_label() == "lowest"]
        ((x, y),) = np.asarray(star.get_offsets())
        assert found[int(y), int(x)] == np.nanmin(found)
        equal = min(((at, at) for at in range(7)), key=lambda at: np.nan_to_num(found[at], nan=np.inf))
        assert boxes(ax, filled=False) == {equal}
        too_high = set()
        for (b, a), loss in np.ndenumerate(found):
            if np.isnan(loss) or loss >= np.nanmin(found[: b + 1, : a + 1]) + LR_GRID.COLLAPSED:
                too_high.add((b, a))
        assert boxes(ax, filled=True) == too_high and (task != "trec" or init != "A" or (5, 3) in too_high)


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


def test_the_summary_names_the_marked_cells_and_the_claim_is_their_mean_difference(frame: pd.DataFrame) -> None:
    summary, (claim,) = LR_GRID.summary(frame), claims("lr_grid", frame)
    assert len(summary) == 2 * len(PLANES)
    gains = []
    for at, (task, init) in enumerate(PLANES):
        found = means(frame, task, init)
        scores = []
        for row, among in (
            (summary.iloc[2 * at], np.ones((9, 7))),
            (summary.iloc[2 * at + 1], np.eye(9, 7)),
        ):
            b, a = np.unravel_index(np.nanargmin(np.where(among, found, np.nan)), found.shape)
            assert (row["lr_A"], row["lr_B"]) == (LR_A[a], LR_B[b])
            own = frame[(frame["task"] == task) & (frame["lora.init"] == init) & (frame["optim.lr"] == LR_A[a])]
            cell = own[np.isclose(own["lora.ratio"], row["ratio"])].sort_values("seed")
            assert row["validation/loss"] == round(cell["validation/loss"].mean(), 4)
            scores.append(cell["test/accuracy"].mean())
        gains.append(scores[0] - scores[1])
    ends = stats.ttest_1samp(gains, 0).confidence_interval(0.95)
    assert (claim.found.low, claim.found.high, claim.found.n) == pytest.approx((*ends, len(PLANES)))


def test_a_pair_that_is_better_by_a_point_is_found() -> None:
    def better(run: dict[str, Any]) -> dict[str, Any]:
        far = abs(np.log2(run["optim.lr"] / 8e-4)) + abs(np.log2(run["optim.lr"] * run["lora.ratio"] / 1.28e-2))
        noise = 1e-3 * unlike(run, "noise")
        return {name: 0.8 - far / 200 + noise if name.endswith("accuracy") else 0.5 + far / 50 for name in SCORES}

    frame = made("lr_grid", better, SEEDS)
    summary = LR_GRID.summary(frame)
    best = summary[summary["cell"] == "best"]
    assert set(best["lr_A"]) == {8e-4} and set(best["ratio"]) == {16} and best["interior"].all()
    (claim,) = claims("lr_grid", frame)  # equal rates are 4 doublings away everywhere: 2 points
    assert claim.found.estimate == pytest.approx(0.02, abs=1e-3) and verdicts("lr_grid", frame) == ["held"]


def test_one_seed_is_drawn(frame: pd.DataFrame) -> None:
    with drawn("lr_grid", frame[frame["seed"] == 0]) as figure:
        assert len(list(panels(figure))) == len(PLANES)


def test_the_ridge_is_where_the_product_of_the_rates_was_built_in() -> None:
    def loss(run: dict[str, Any]) -> dict[str, Any]:
        product = 2 * np.log2(run["optim.lr"]) + np.log2(run["lora.ratio"])
        return distinct(run) | {"validation/loss": 0.4 + (product - np.log2(3.3e-5)) ** 2 / 50}

    summary = LR_GRID.summary(made("lr_grid", loss))
    assert summary["ridge"].tolist() == pytest.approx([3.3e-5] * 2 * len(PLANES), rel=1e-3)


def test_a_grid_whose_best_rates_are_all_at_an_end_has_no_ridge() -> None:
    def loss(run: dict[str, Any]) -> dict[str, Any]:
        return distinct(run) | {"validation/loss": -np.log2(run["optim.lr"])}

    frame = made("lr_grid", loss)
    assert LR_GRID.summary(frame)["ridge"].isna().all()
    with drawn("lr_grid", frame) as figure:
        (ridge,) = [line for line in figure.axes[0].lines if str(line.get_label()).startswith("ridge")]
        assert np.isnan(np.asarray(ridge.get_ydata(), dtype=float)).all()
