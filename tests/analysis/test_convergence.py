"""convergence: lines are means, a built-in speed-up is found, and runs that never reach the target count."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from loralab.errors import UserError
from loralab.studies.stats import mean_interval
from tests.analysis.frames import claims, drawn, made, marks, module, unlike, verdicts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CONVERGENCE = module("convergence")
STEPS, SEEDS = range(0, 101, 5), range(200, 205)
TWO_TASKS = ("task=rotten_tomatoes,trec", "seed=range(200,205)")
ACCURACY = "validation/accuracy"


def curve(run: dict[str, Any], tau: float, top: float = 0.8) -> list[dict[str, Any]]:
    """A line from .5 to `top` at step tau, constant from there; two steps take one second."""
    rows: list[dict[str, Any]] = []
    for step in STEPS:
        at: dict[str, Any] = {"step": step, ACCURACY: 0.5 + (top - 0.5) * min(1.0, step / tau), "seconds": 3 + step / 2}
        rows.append(at | {"train/loss": 2 * unlike(run | at, "loss") if step else None})
    return rows


TAU = {0.25: 90, 1: 80, 2: 80, 4: 60, 8: 50, 16: 40, 64: 40}
NEVER = {(64, seed) for seed in SEEDS} | {(8, 203)}  # (λ, seed) whose accuracy stops one point below half the gain


def truth(run: dict[str, Any]) -> list[dict[str, Any]]:
    """λ = 16 is twice as fast as λ = 1; λ = 64 and one seed of λ = 8 never reach the target."""
    tau = TAU[run["lora.ratio"]] - 20 * (run["seed"] == 201)
    return curve(run, tau, 0.64 if (run["lora.ratio"], run["seed"]) in NEVER else 0.8)


def study(scores: Callable[[dict[str, Any]], list[dict[str, Any]]], *overrides: str) -> pd.DataFrame:
    return made("convergence", scores, *TWO_TASKS, *overrides).sample(frac=1, random_state=0)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return study(truth)


@pytest.fixture(scope="module")
def figure(frame: pd.DataFrame) -> Iterator["Figure"]:
    with drawn("convergence", frame) as found:
        yield found


def trec(frame: pd.DataFrame) -> dict[float, list[pd.DataFrame]]:
    """The runs of one task, by ratio."""
    found: dict[float, list[pd.DataFrame]] = CONVERGENCE.split_runs(frame[frame["task"] == "trec"])
    return found


def test_the_lines_are_the_means_of_the_seeds_and_the_bands_their_intervals(
    frame: pd.DataFrame, figure: "Figure"
) -> None:
    for row, task in enumerate(sorted(frame["task"].unique())):
        for column, metric in enumerate((ACCURACY, "train/loss")):
            ax: Any = figure.axes[3 * row + column]
            steps = list(STEPS)[column:]  # before the first step there is no training loss
            for ratio, line, band in zip(CONVERGENCE.SHOWN, ax.lines, ax.collections, strict=True):
                of = frame[(frame["task"] == task) & (frame["lora.ratio"] == ratio)]
                scores = [of.loc[of["step"] == step, metric].to_numpy() for step in steps]
                assert {len(each) for each in scores} == {len(SEEDS)}
                np.testing.assert_allclose(line.get_data(), [steps, [each.mean() for each in scores]], rtol=1e-9)
                middle = mean_interval(scores[3])
                ends = band.get_paths()[0].vertices
                at = ends[ends[:, 0] == steps[3], 1]
                assert (min(at), max(at)) == pytest.approx((middle.low, middle.high))


def test_a_speed_up_that_was_built_in_is_found_by_seed_and_claimed(frame: pd.DataFrame) -> None:
    for ratio in (4, 16):
        wanted = [(TAU[1] - 20 * (seed == 201)) / (TAU[ratio] - 20 * (seed == 201)) for seed in SEEDS]
        assert CONVERGENCE.speeds(trec(frame), ratio) == pytest.approx(wanted, rel=0.2)
    found = CONVERGENCE.sooner(frame, 16)
    assert found.settings.keys() == {("trec",), ("rotten_tomatoes",)} and found.effect.n == 10
    sixteen = claims("convergence", frame)[0]
    assert (sixteen.arm, sixteen.found, sixteen.number) == ("λ = 16", found.effect, 2.0)
    assert verdicts("convergence", frame)[0] == "held"
    seconds = CONVERGENCE.speeds(trec(frame), 16, "seconds")
    assert max(seconds) < 2, "starting up takes three seconds in both arms"


def test_a_slower_ratio_is_contradicted() -> None:
    slower = study(lambda run: curve(run, {16: 90, 1: 40 + run["seed"] % 3 * 5}.get(run["lora.ratio"], 60)))
    assert verdicts("convergence", slower)[0] == "contradicted in size"


def test_speed_ups_are_drawn_a_row_each_beside_the_paper_s_two_times(frame: pd.DataFrame, figure: "Figure") -> None:
    ax: Any = figure.axes[5]
    ratios = [ratio for ratio in sorted(TAU) if ratio > 1]
    assert [label.get_text() for label in ax.get_yticklabels()] == [f"λ = {ratio:g}" for ratio in ratios]
    ((_, places, middle, ends),) = marks(ax, across=True)
    assert places == list(range(len(ratios)))
    for ratio, estimate, bar in zip(ratios, middle, ends, strict=True):
        found = CONVERGENCE.sooner(frame, ratio).settings["trec",]
        assert np.isnan([estimate, found.estimate]).all() or estimate == pytest.approx(found.estimate)
        assert np.isnan(found.low) or bar == pytest.approx([found.low, found.high])
    assert [2, 2] in [list(line.get_xdata()) for line in ax.lines]
    summary = CONVERGENCE.summary(frame).set_index(["ratio", "task"])
    assert len(summary) == 3 * len(ratios) and summary.loc[(16, "all"), "times, steps"].startswith("2.0")


def test_a_ratio_that_gains_half_as_much_has_no_speed(frame: pd.DataFrame) -> None:
    assert np.isnan(CONVERGENCE.speeds(trec(frame), 64)).all()
    assert verdicts("convergence", frame)[-1] == "not identified"


@pytest.mark.parametrize("ratio", [1, 16])
def test_a_run_that_diverges_leaves_no_speed_and_its_line_ends_where_it_did(ratio: float) -> None:
    def score(run: dict[str, Any]) -> list[dict[str, Any]]:
        rows = curve(run, 40)
        gone = run["lora.ratio"] == ratio and run["seed"] == 202
        return [{**row, "status": "diverged"} for row in rows[:12]] if gone else rows

    frame = study(score, "task=trec")
    assert np.isnan(CONVERGENCE.speeds(trec(frame), 16)).all()
    with drawn("convergence", frame) as figure:
        ends: list[Any] = [line.get_xdata() for line in figure.axes[0].lines]
        assert [max(steps) for steps in ends] == [55 if each == ratio else 100 for each in CONVERGENCE.SHOWN]


def test_a_run_that_diverges_before_its_first_evaluation_is_drawn_as_none() -> None:
    def score(run: dict[str, Any]) -> list[dict[str, Any]]:
        gone = run["lora.ratio"] == 16 and run["seed"] == 202
        empty = {"status": "diverged", "step": None, ACCURACY: None, "train/loss": None, "seconds": None}
        return [empty] if gone else curve(run, 40)

    frame = study(score, "task=trec")
    assert np.isnan(CONVERGENCE.speeds(trec(frame), 16)).all()
    with drawn("convergence", frame) as figure:
        assert len(figure.axes[0].lines) == len(CONVERGENCE.SHOWN)


@pytest.mark.parametrize("step", [0, 45, 100])
def test_a_step_that_is_not_there_is_named_and_nothing_is_drawn(frame: pd.DataFrame, step: int) -> None:
    gone = (frame["task"] == "trec") & (frame["seed"] == 203) & (frame["lora.ratio"] == 4) & (frame["step"] == step)
    assert int(gone.sum()) == 1
    with pytest.raises(UserError, match=rf"no row for task=trec seed=203 lora.ratio=4 step={step}; `loralab collect"):
        CONVERGENCE.draw(frame[~gone])
