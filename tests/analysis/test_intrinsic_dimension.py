"""intrinsic_dimension: d90 is where accuracies reach 90% of full's, for each seed, and the claims use it."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from loralab.errors import UserError
from loralab.studies import results
from loralab.studies.verdicts import CONTRADICTED, HELD, UNKNOWN
from loralab.sweeps.study import open_study
from tests.analysis.frames import claims, distinct, drawn, made, marks, module, unlike, verdicts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INTRINSIC = module("intrinsic_dimension")
DIMS = (10, 100, 1000, 10_000)
WEIGHTS, TOP, FLOOR = 22_700_000, 0.9, 0.5


def scored(run: dict[str, Any]) -> dict[str, Any]:
    size = {"full": WEIGHTS, "head": 0}.get(run["method"], run["intrinsic.dim"])
    return distinct(run) | {"parameters": size, "correct": ""}


def built_in(d90: float, *, spread: float = 0.0) -> pd.DataFrame:
    """Accuracies linear in log d, with 90% of full's at d90; d90 is multiplied by up to 10^spread for each seed."""

    def score(run: dict[str, Any]) -> dict[str, Any]:
        own = np.log10(d90) + spread * unlike({"seed": run["seed"]}, "d90")
        line = 0.9 * TOP + 0.06 * (np.log10(run["intrinsic.dim"]) - own)
        return scored(run) | {"test/accuracy": {"full": TOP, "head": FLOOR}.get(run["method"], line)}

    return made("intrinsic_dimension", score)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return made("intrinsic_dimension", scored).sample(frac=1, random_state=0)


@pytest.fixture(scope="module")
def spread() -> pd.DataFrame:
    return built_in(400, spread=0.3).sample(frac=1, random_state=0)


@pytest.fixture(scope="module")
def figure(spread: pd.DataFrame) -> Iterator["Figure"]:
    with drawn("intrinsic_dimension", spread) as found:
        yield found


def fresh(frame: pd.DataFrame, method: str, dim: float | None = None) -> Any:
    rows = frame[(frame["stage"] == "confirm") & (frame["method"] == method)]
    rows = rows[rows["intrinsic.dim"].isna() if dim is None else rows["intrinsic.dim"] == dim].sort_values("seed")
    assert rows["seed"].tolist() == list(range(100, 105))
    return rows["test/accuracy"].to_numpy(dtype=float)


def test_the_smallest_dimension_is_read_off_a_line_in_log_d() -> None:
    dims, scores = [10, 100, 1000], [0.2, 0.4, 0.8]
    assert INTRINSIC.smallest(dims, scores, 0.3) == pytest.approx(10**1.5)
    assert INTRINSIC.smallest(dims, scores, 0.5) == pytest.approx(10**2.25)
    assert INTRINSIC.smallest(dims, scores, 0.4) == pytest.approx(100)
    assert INTRINSIC.smallest(dims, scores, 0.1) == 10
    assert INTRINSIC.smallest(dims, scores, 0.9) == np.inf
    assert INTRINSIC.smallest(dims, [0.2, 0.8, 0.4], 0.5) == pytest.approx(10**1.5), "the first, though it falls again"


def test_a_diverged_run_has_not_reached_it() -> None:
    nan = float("nan")
    assert INTRINSIC.smallest([10, 100, 1000], [0.2, nan, 0.8], 0.5) == 1000
    assert INTRINSIC.smallest([10, 100, 1000], [0.2, 0.4, nan], 0.5) == np.inf
    assert INTRINSIC.smallest([10, 100, 1000], [0.2, 0.4, 0.8], nan) == np.inf


def test_every_arm_has_as_many_trials_and_its_heads_rate_pinned_but_for_the_head_alone() -> None:
    with open_study("intrinsic_dimension", ("tracker=none",)) as study:
        configs = [study.composer.settings(job) for job in study.grid]
    arms = [config.intrinsic.dim for config in configs if config.method.name == "intrinsic"]
    assert {dim: arms.count(dim) for dim in arms} == dict.fromkeys(DIMS, 5)
    assert [sum(config.method.name == name for config in configs) for name in ("head", "full")] == [5, 5]
    for config in configs:
        assert config.optim.head_lr == (config.optim.lr if config.method.name == "head" else 4e-3)


def test_a_built_in_d90_is_found_by_every_seed_and_by_the_means() -> None:
    frame = built_in(700)
    np.testing.assert_allclose(INTRINSIC.by_seed(frame), [700] * 5, rtol=1e-9)
    assert INTRINSIC.of_means(frame) == pytest.approx(700)
    gain = 700 * 10 ** ((FLOOR + 0.9 * (TOP - FLOOR) - 0.9 * TOP) / 0.06)
    np.testing.assert_allclose(INTRINSIC.by_seed(frame, of_gain=True), [gain] * 5, rtol=1e-9)


def test_the_interval_is_students_over_the_logarithms_of_each_seeds_own(spread: pd.DataFrame) -> None:
    own = [400 * 10 ** (0.3 * unlike({"seed": seed}, "d90")) for seed in range(100, 105)]
    np.testing.assert_allclose(INTRINSIC.by_seed(spread), own, rtol=1e-7)
    found = INTRINSIC.interval(INTRINSIC.by_seed(spread))
    low, high = np.exp(stats.ttest_1samp(np.log(own), 0).confidence_interval(0.95))
    assert (found.estimate, found.low, found.high) == pytest.approx((stats.gmean(own), low, high))


def test_dots_are_means_and_lines_are_fulls_level_its_share_and_d90(spread: pd.DataFrame, figure: "Figure") -> None:
    ax: Any = figure.axes[0]
    ((_, dims, middle, ends),) = marks(ax)
    assert dims == list(DIMS)
    for d, y, bar in zip(DIMS, middle, ends, strict=True):
        scores = fresh(spread, "intrinsic", d)
        assert y == pytest.approx(scores.mean())
        assert bar == pytest.approx(list(stats.ttest_1samp(scores, 0).confidence_interval(0.95)))
    named = {text.get_text(): text.xy for text in ax.texts}
    levels = {name: place[1] for name, place in named.items()}
    at = INTRINSIC.of_means(spread)
    expected = {"full fine-tuning": TOP, "90% of it": 0.9 * TOP, "head alone": FLOOR, f"d90 = {at:,.0f}": 0.9 * TOP}
    assert levels == pytest.approx(expected) and named[f"d90 = {at:,.0f}"][0] == pytest.approx(at)
    heights = [line.get_ydata()[0] for line in ax.lines if len(line.get_ydata()) == 2]
    assert set(np.round(heights, 9)) == set(np.round([TOP, FLOOR, 0.9 * TOP], 9))
    (thick,) = [line for line in ax.lines if line.get_linewidth() == 2.5]
    found = INTRINSIC.interval(INTRINSIC.by_seed(spread))
    assert list(thick.get_xdata()) == pytest.approx([found.low, found.high])


@pytest.mark.parametrize(
    ("d90", "wanted"), [(200, [HELD, HELD]), (5_500, [CONTRADICTED, HELD]), (2e6, [UNKNOWN, UNKNOWN])]
)
def test_the_claims_follow_what_was_built_in(d90: float, wanted: list[str]) -> None:
    frame = built_in(d90, spread=0.2)
    assert verdicts("intrinsic_dimension", frame) == wanted
    paper, weights = (claim.found.estimate for claim in claims("intrinsic_dimension", frame))
    assert np.isnan([paper, weights]).all() == (d90 > DIMS[-1])
    assert np.isnan(paper) or paper / weights == pytest.approx(WEIGHTS / 200, rel=0.01)


def test_a_d90_beyond_the_dimensions_is_not_drawn_and_said_of_the_gain() -> None:
    assert "of the gain over the head alone: not reached." in INTRINSIC.caption(built_in(1e6))
    assert "of the gain over the head alone: at most 10" in INTRINSIC.caption(built_in(3))
    with drawn("intrinsic_dimension", built_in(1e6)) as figure:
        assert not [text for text in figure.axes[0].texts if "d90" in text.get_text()]


def test_the_summary_says_what_share_of_full_an_arm_has(frame: pd.DataFrame) -> None:
    table = INTRINSIC.summary(frame).set_index("arm")
    assert list(table.index) == ["head alone", *(f"d = {d}" for d in DIMS), "full fine-tuning"]
    mean, full, head = fresh(frame, "intrinsic", 1000).mean(), fresh(frame, "full").mean(), fresh(frame, "head").mean()
    assert table.loc["d = 1000", "of full"] == f"{mean / full:.1%}"
    assert table.loc["d = 1000", "of full's gain over the head"] == f"{(mean - head) / (full - head):.1%}"


@pytest.mark.parametrize(("method", "dim"), [("intrinsic", 1000), ("full", None)])
def test_a_row_that_is_not_there_is_named(frame: pd.DataFrame, tmp_path: Path, method: str, dim: int | None) -> None:
    results.save(frame, tmp_path / "x.csv")
    assert len(results.load_results("intrinsic_dimension", path=tmp_path / "x.csv")) == 60
    arm = (frame["method"] == method) & (
        frame["intrinsic.dim"].isna() if dim is None else frame["intrinsic.dim"] == dim
    )
    for stage, total in (("grid", 30), ("confirm", 30)):
        one = frame[arm & (frame["stage"] == stage)].index[0]
        results.save(frame.drop(index=one), tmp_path / "x.csv")
        with pytest.raises(UserError, match=rf"no row for .*method={method} .*\(1 of {total} runs have none\)"):
            results.load_results("intrinsic_dimension", path=tmp_path / "x.csv")
