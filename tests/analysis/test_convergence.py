"""convergence: lines are means, a built-in speed-up is found, and runs that never reach the target count."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from loralab.errors import UserError
from loralab.studies.claims import judge
from loralab.studies.stats import mean_interval, ratio_interval, speedup
from tests.analysis.frames import drawn, made, marks, module, unlike

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CONVERGENCE = module("convergence")
STEPS, SEEDS = range(0, 101, 5), range(200, 205)
TWO_TASKS = ("task=rotten_tomatoes,trec", "seed=range(200,205)")
SHARES = (0.5, 0.8, 0.9, 0.95, 1.0)
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


def steps_to(share: float, ratio: float, seed: int) -> float:
    """The first evaluation at or beyond that share of the gain, computed by hand for the curves above."""
    if (ratio, seed) in NEVER:
        return np.inf
    tau = TAU[ratio] - 20 * (seed == 201)
    return float(5 * np.ceil(round(share * tau / 5, 9)))


@pytest.mark.parametrize("share", SHARES)
def test_the_crossings_are_of_one_target_for_all_seeds(frame: pd.DataFrame, share: float) -> None:
    found = CONVERGENCE.crossings(trec(frame), share)
    for ratio in TAU:
        assert found[ratio] == [steps_to(share, ratio, seed) for seed in SEEDS]
    seconds = CONVERGENCE.crossings(trec(frame), share, "seconds")
    assert seconds[4] == [3 + step / 2 for step in found[4]]


def test_a_speedup_that_was_built_in_is_found_and_claimed(frame: pd.DataFrame) -> None:
    base, other = ([steps_to(0.95, ratio, seed) for seed in SEEDS] for ratio in (1, 16))
    assert CONVERGENCE.sooner(trec(frame), 16, 0.95) == ratio_interval(base, other)
    claims = CONVERGENCE.claims(frame)
    assert [claim.found.estimate for claim in claims] == pytest.approx([2.1, 2.1], abs=0.2)
    assert [row.verdict for row in judge(claims)] == ["held", "held"]
    assert "x [" in claims[0].ours and claims[0].ours.endswith("n = 5")


def test_a_slower_ratio_does_not_hold() -> None:
    slower = study(lambda run: curve(run, {16: 90, 1: 40 + run["seed"] % 3 * 5}.get(run["lora.ratio"], 60)))
    assert [row.verdict for row in judge(CONVERGENCE.claims(slower))] == ["did not hold"] * 2


def test_registered_speedups_are_drawn_a_row_each_beside_the_paper_s_two_times(
    frame: pd.DataFrame, figure: "Figure"
) -> None:
    ax: Any = figure.axes[5]
    ratios = [ratio for ratio in sorted(TAU) if ratio != 1]
    assert [label.get_text() for label in ax.get_yticklabels()] == [f"λ = {ratio:g}" for ratio in ratios]
    ((_, places, middle, ends),) = marks(ax, across=True)
    found = [CONVERGENCE.registered(trec(frame), ratio) for ratio in ratios]
    assert places == list(range(len(ratios)))
    for estimate, bar, each in zip(middle, ends, found, strict=True):
        assert np.isnan([estimate, each.estimate]).all() or estimate == pytest.approx(each.estimate)
        assert np.isnan(each.low) or bar == pytest.approx([each.low, each.high])
    assert found[ratios.index(16)].estimate == pytest.approx(2, abs=0.2) == 2
    assert [2, 2] in [list(line.get_xdata()) for line in ax.lines]


def test_what_never_reaches_the_target_is_counted_in_the_summary(frame: pd.DataFrame) -> None:
    assert CONVERGENCE.sooner(trec(frame), 64, 1.0).estimate == 80 / 100  # counted as right after the end
    summary = CONVERGENCE.summary(frame[frame["task"] == "trec"]).set_index(["ratio", "share"])["never"]
    assert (summary[64, "95%"], summary[8, "95%"], summary[16, "95%"]) == ("5 of 5", "1 of 5", "0 of 5")


def test_a_run_that_never_crosses_may_have_done_so_right_after_the_last_step() -> None:
    """With eight seeds the sign test has an interval, whose end is the length of the runs, not infinity."""

    def score(run: dict[str, Any]) -> list[dict[str, Any]]:
        return curve(run, 80, 0.6 if run["lora.ratio"] == 16 else 0.8)

    rows = study(score, "task=trec", "seed=range(200,208)")
    found = CONVERGENCE.sooner(trec(rows), 16, 0.95)
    assert found == speedup([80.0] * 8, [np.inf] * 8, horizon=100)
    assert (found.estimate, found.high, found.n) == (0.8, 0.8, 8) and found.p < 0.05
    assert CONVERGENCE.sooner(trec(rows), 16, 0.95, "seconds").high == pytest.approx(43 / 53)
    assert [row.verdict for row in judge(CONVERGENCE.claims(rows))] == ["did not hold"]


def test_the_target_is_a_share_of_the_mean_gain_of_equal_rates_so_some_of_their_seeds_miss_it() -> None:
    tops = dict(zip(SEEDS, (0.7, 0.75, 0.8, 0.85, 0.9), strict=True))
    rows = study(lambda run: curve(run, 80, tops[run["seed"]]), "task=trec")
    assert CONVERGENCE.target(trec(rows), 1.0) == pytest.approx(0.8)
    assert np.isinf(CONVERGENCE.crossings(trec(rows), 1.0)[1]).tolist() == [True, True, False, False, False]
    assert CONVERGENCE.crossings(trec(rows), 1.0)[1][2:] == [80, 70, 60]


def test_a_run_that_begins_above_the_target_is_there_at_its_first_evaluation() -> None:
    def score(run: dict[str, Any]) -> list[dict[str, Any]]:
        return curve(run, 80) if run["seed"] != 202 else [row | {ACCURACY: 0.9} for row in curve(run, 80)]

    rows = study(score, "task=trec")
    assert CONVERGENCE.crossings(trec(rows), 0.5)[16][2] == 5


@pytest.mark.parametrize("how", ["falls", "diverges"])
def test_where_equal_rates_gain_nothing_or_diverge_nothing_can_be_told(how: str) -> None:
    def score(run: dict[str, Any]) -> list[dict[str, Any]]:
        rows = curve(run, 80, 0.4 if how == "falls" and run["lora.ratio"] == 1 else 0.8)
        gone = how == "diverges" and (run["lora.ratio"], run["seed"]) == (1, 201)
        return [{**row, "status": "diverged"} for row in rows[:9]] if gone else rows

    rows = study(score, "task=trec")
    assert CONVERGENCE.crossings(trec(rows), 0.5)[16] == [np.inf] * 5
    found = CONVERGENCE.sooner(trec(rows), 16, 0.5)
    assert np.isnan(found.estimate) and (found.low, found.high) == (0, np.inf)


def test_a_run_that_diverges_never_gets_there_and_its_line_ends_where_it_did() -> None:
    def score(run: dict[str, Any]) -> list[dict[str, Any]]:
        rows = curve(run, 40)
        gone = run["lora.ratio"] == 16 and run["seed"] == 202
        return [{**row, "status": "diverged"} for row in rows[:12]] if gone else rows

    frame = study(score, "task=trec")
    assert CONVERGENCE.crossings(trec(frame), 0.95)[16] == [40, 40, np.inf, 40, 40]  # though it was above at step 55
    with drawn("convergence", frame) as figure:
        ends: list[Any] = [line.get_xdata() for line in figure.axes[0].lines]
        assert [max(steps) for steps in ends] == [55 if ratio == 16 else 100 for ratio in CONVERGENCE.SHOWN]


def test_a_run_that_diverges_before_its_first_evaluation_is_one_that_never_gets_there() -> None:
    def score(run: dict[str, Any]) -> list[dict[str, Any]]:
        gone = run["lora.ratio"] == 16 and run["seed"] == 202
        empty = {"status": "diverged", "step": None, ACCURACY: None, "train/loss": None, "seconds": None}
        return [empty] if gone else curve(run, 40)

    frame = study(score, "task=trec")
    assert CONVERGENCE.crossings(trec(frame), 0.95)[16] == [40, 40, np.inf, 40, 40]
    with drawn("convergence", frame) as figure:
        assert len(figure.axes[0].lines) == len(CONVERGENCE.SHOWN)


@pytest.mark.parametrize("step", [0, 45, 100])
def test_a_step_that_is_not_there_is_named_and_nothing_is_drawn(frame: pd.DataFrame, step: int) -> None:
    gone = (frame["task"] == "trec") & (frame["seed"] == 203) & (frame["lora.ratio"] == 4) & (frame["step"] == step)
    assert int(gone.sum()) == 1
    with pytest.raises(UserError, match=rf"no row for task=trec seed=203 lora.ratio=4 step={step}; `loralab collect"):
        CONVERGENCE.draw(frame[~gone])
