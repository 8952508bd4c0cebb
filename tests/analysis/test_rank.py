"""rank: each set of targets has a line, the rules for alpha agree at r = 8, and half a point is tested as .005."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from loralab.errors import UserError
from loralab.studies import results
from loralab.studies.verdicts import CONTRADICTED, HELD
from loralab.sweeps.study import open_study
from loralab.theory.rate_law import SCALINGS
from tests.analysis.frames import claims, distinct, drawn, made, marks, module, unlike, verdicts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RANK = module("rank")
RANKS, SETS, RULES = (1, 4, 16, 64), ("q", "q,v", "q,k,v,o", "all"), ("constant", "alpha/r", "alpha/sqrt_r")


def steep(points: float, noise: float = 1e-3) -> pd.DataFrame:
    """With alpha = r, r = 64 is better than any smaller rank by the given points, with noise."""

    def score(run: dict[str, Any]) -> dict[str, Any]:
        gain = points / 100 * (run["lora.rank"] == 64 and run["lora.scaling"] == "constant")
        accuracy = 0.8 + gain + noise * unlike(run, "chance")
        return distinct(run) | {"test/accuracy": accuracy, "correct": ""}

    return made("rank", score)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return made("rank", lambda run: distinct(run) | {"correct": ""}).sample(frac=1, random_state=0)


@pytest.fixture(scope="module")
def figure(frame: pd.DataFrame) -> Iterator["Figure"]:
    with drawn("rank", frame) as found:
        yield found


def fresh(frame: pd.DataFrame, targets: str, rule: str, rank: int, name: str) -> Any:
    rows = frame[(frame["stage"] == "confirm") & (frame["lora.targets"] == targets)]
    rows = rows[(rows["lora.scaling"] == rule) & (rows["lora.rank"] == rank)].sort_values("seed")
    assert rows["seed"].tolist() == list(range(100, 105))
    return rows[name].to_numpy(dtype=float)


def check(bars: Any, arms: list[Any]) -> None:
    """Points are the arms' means; a bar is the interval of its own mean."""
    _, _, middle, ends = bars
    np.testing.assert_allclose(middle, [scores.mean() for scores in arms], rtol=1e-9)
    for scores, bar in zip(arms, ends, strict=True):
        np.testing.assert_allclose(bar, stats.ttest_1samp(scores, 0).confidence_interval(0.95), rtol=1e-9)


def test_a_line_is_a_set_of_targets_with_the_interval_of_each_mean(frame: pd.DataFrame, figure: "Figure") -> None:
    for ax, metric in zip(figure.axes[:2], ("test/accuracy", "test/loss"), strict=True):
        assert [label.replace(", ", ",") for label, *_ in marks(ax)] == list(SETS)
        for targets, bars in zip(SETS, marks(ax), strict=True):
            check(bars, [fresh(frame, targets, "constant", rank, metric) for rank in RANKS])
            assert np.abs(np.log2(np.array(bars[1]) / RANKS)).max() < 0.5


def test_the_rules_for_alpha_are_drawn_with_their_own_rates(frame: pd.DataFrame, figure: "Figure") -> None:
    rates: Any = figure.axes[2]
    for rule, line, bars in zip(RULES, rates.lines, marks(figure.axes[3]), strict=True):
        assert bars[0] == RANK.RULES[rule]
        selected = [set(fresh(frame, "q,v", rule, rank, "optim.lr")) for rank in RANKS]
        assert [{rate} for rate in line.get_ydata()] == selected
        check(bars, [fresh(frame, "q,v", rule, rank, "test/loss") for rank in RANKS])


def test_the_rules_are_one_at_rank_eight_and_each_names_its_alpha() -> None:
    with open_study("rank", ("tracker=none",)) as study:
        configs = [study.composer.settings(job) for job in study.grid]
    pairs = {(config.lora.scaling, config.lora.alpha) for config in configs}
    assert {rule: round(SCALINGS[rule](alpha, 8), 6) for rule, alpha in pairs} == dict.fromkeys(RULES, 1.0)
    for rule, alpha in pairs:
        meant = {"constant": 64.0, "alpha/r": 8.0, "alpha/sqrt_r": np.sqrt(8 * 64)}[rule]  # alpha over r, at r = 64
        assert SCALINGS[rule](alpha, 64) * 64 == pytest.approx(meant, rel=1e-6)


def test_every_arm_has_as_many_trials_and_a_row(frame: pd.DataFrame) -> None:
    arms = frame[frame["stage"] == "grid"].groupby(["lora.targets", "lora.scaling", "lora.rank"]).size()
    assert len(arms) == 24 and set(arms) == {10}
    table = RANK.summary(frame)
    assert len(table) == 24 and table["interior"].dtype == bool
    row = table[(table["targets"] == "all") & (table["rank"] == 4)].iloc[0]
    some, most = (fresh(frame, "all", "constant", rank, "test/accuracy") for rank in (4, 64))
    assert row["difference, points"] == f"{100 * (some - most).mean():+.2f}"


@pytest.mark.parametrize(("points", "verdict"), [(0.0, HELD), (0.2, HELD), (1.0, CONTRADICTED), (-1.0, CONTRADICTED)])
def test_a_small_rank_is_as_good_as_64_within_half_a_point_or_not(points: float, verdict: str) -> None:
    """Points that r = 64 gains over r = 4, and r = 4 over r = 1."""
    frame = steep(points)
    assert verdicts("rank", frame) == [verdict] * 2
    one, four = (claim.found for claim in claims("rank", frame))
    assert (one.estimate, four.estimate, one.n) == pytest.approx((-points / 100, -points / 100, 10), abs=1e-3)


def test_equal_ranks_are_not_held_where_noise_is_larger_than_the_margin() -> None:
    assert HELD not in verdicts("rank", steep(0.0, noise=0.05))


@pytest.mark.parametrize("at", [0, -1])
def test_a_row_that_is_not_there_is_named(frame: pd.DataFrame, tmp_path: Path, at: int) -> None:
    ordered = frame.sort_values("stage", kind="stable", ascending=False)
    results.save(ordered, tmp_path / "x.csv")
    assert len(results.load_results("rank", path=tmp_path / "x.csv")) == 360
    results.save(ordered.drop(index=ordered.index[at]), tmp_path / "x.csv")
    total = 240 if at == 0 else 120
    with pytest.raises(UserError, match=rf"no row for .*lora\.targets=.* \(1 of {total} runs have none\)"):
        results.load_results("rank", path=tmp_path / "x.csv")
