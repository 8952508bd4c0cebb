"""methods: an arm is a method with its sizes, the figure shows the CSV, and the claims find built-in differences."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from loralab.errors import UserError
from loralab.studies import results
from loralab.studies.verdicts import CONTRADICTED, EQUIVALENT, HELD
from loralab.sweeps.study import open_study
from tests.analysis.frames import claims, distinct, drawn, made, marks, module, unlike, verdicts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METHODS = module("methods")
TRIALS = 10  # five rates, two seeds
FRESH = range(100, 105)
# Parameters without the head's, per unit of size if there is one; synthetic, but in the real order.
EACH = {"lora": 9_000, "lora_plus": 9_000, "dora": 9_500, "rslora": 9_000, "houlsby": 9_700, "pfeiffer": 5_000}
EACH |= {"prefix": 4_600, "prompt": 400, "p_tuning": 20_000}
WHOLE = {"bitfit": 41_000, "intrinsic": 1_000, "lora_prefix": 166_000, "full": 22_700_000, "head": 0}
ARMS = {  # name -> its rows: method, rank, size of the bottleneck, virtual tokens
    "BitFit": ("bitfit", None, None, None),
    "Houlsby (size 64)": ("houlsby", None, 64, None),
    "Pfeiffer (size 64)": ("pfeiffer", None, 64, None),
    "prefix (20 tokens)": ("prefix", None, None, 20),
    "prompt (10 tokens)": ("prompt", None, None, 10),
    "P-tuning (10 tokens)": ("p_tuning", None, None, 10),
    "random subspace (d = 1000)": ("intrinsic", None, None, None),
    "LoRA (r = 1)": ("lora", 1, None, None),
    "LoRA (r = 8)": ("lora", 8, None, None),
    "LoRA (r = 64)": ("lora", 64, None, None),
    "LoRA+ (r = 8)": ("lora_plus", 8, None, None),
    "DoRA (r = 8)": ("dora", 8, None, None),
    "rsLoRA (r = 64)": ("rslora", 64, None, None),
    "LoRA and prefix (r = 8, 20 tokens)": ("lora_prefix", 8, None, 20),
    "LoRA on all maps and biases (r = 384)": ("lora", 384, None, None),
    "full fine-tuning": ("full", None, None, None),
    "head alone": ("head", None, None, None),
}
COLUMNS = ("lora.rank", "bottleneck.size", "prompt.tokens")


def parameters(run: dict[str, Any]) -> float:
    sizes = [run[key] for key in COLUMNS if run[key] == run[key]]
    return float(WHOLE[run["method"]] if run["method"] in WHOLE else EACH[run["method"]] * sizes[0])


def scored(run: dict[str, Any]) -> dict[str, Any]:
    return distinct(run) | {"parameters": parameters(run), "correct": ""}


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return made("methods", scored).sample(frac=1, random_state=0)


@pytest.fixture(scope="module")
def figure(frame: pd.DataFrame) -> Iterator["Figure"]:
    with drawn("methods", frame) as found:
        yield found


def rows_of(frame: pd.DataFrame, name: str) -> "pd.Series[bool]":
    method, *sizes = ARMS[name]
    found = frame["method"] == method
    for key, value in zip(COLUMNS, sizes, strict=True):
        found &= frame[key].isna() if value is None else frame[key] == value
    return found


def fresh(frame: pd.DataFrame, name: str) -> Any:
    rows = frame[rows_of(frame, name) & (frame["stage"] == "confirm")].sort_values("seed")
    assert rows["seed"].tolist() == list(FRESH)
    return rows["test/accuracy"].to_numpy(dtype=float)


@pytest.fixture(scope="module")
def configs() -> list[Any]:
    """The configs of the first stage's runs."""
    with open_study("methods", ("tracker=none",)) as study:
        return [study.composer.settings(job) for job in study.grid]


def test_every_arm_has_as_many_trials_and_its_heads_rate_pinned_but_for_the_head_alone(
    configs: list[Any], frame: pd.DataFrame
) -> None:
    assert len(configs) == len(ARMS) * TRIALS and {config.train.steps for config in configs} == {100}
    assert {config.lora.init for config in configs} == {"A"}
    for config in configs:
        assert config.optim.head_lr == (config.optim.lr if config.method.name == "head" else 4e-3)
    grid = frame[frame["stage"] == "grid"]
    assert {name: int(rows_of(grid, name).sum()) for name in ARMS} == dict.fromkeys(ARMS, TRIALS)


def test_loras_are_one_at_rank_8_and_the_last_trains_all_that_section_4_1_says(configs: list[Any]) -> None:
    lora = [config.lora for config in configs if "lora" in config.method.name]
    whole = [one for one in lora if one.rank == 384]
    assert len(whole) == TRIALS
    assert {(one.alpha, tuple(one.targets), one.bias, one.ratio) for one in whole} == {(384, ("all",), "all", 1)}
    for one in lora:
        assert one in whole or (one.targets, one.bias) == (["q", "v"], "none")
        at_8 = one.alpha / 8**0.5 if one.scaling == "alpha/sqrt_r" else one.alpha / one.rank
        assert at_8 == pytest.approx(1, abs=1e-6)
    assert {one.ratio for one in lora} == {1, 4} and sum(one.dora for one in lora) == TRIALS


def test_a_row_is_an_arm_with_its_size_the_best_on_top(frame: pd.DataFrame, figure: "Figure") -> None:
    left, right = figure.axes
    names = [text.get_text() for text in left.get_yticklabels()]
    means = [fresh(frame, name).mean() for name in names]
    assert sorted(names) == sorted(ARMS) and means == sorted(means, reverse=True)
    sizes = {names[round(line.get_ydata()[0])]: line.get_xdata()[0] for line in cast(Any, right.lines)}
    assert sizes == {n: frame.loc[rows_of(frame, n), "parameters"].iloc[0] for n in list(ARMS)[:-1]}
    assert right.get_xscale() == "log"


def test_bars_are_the_paired_differences_from_full(frame: pd.DataFrame, figure: "Figure") -> None:
    ax: Any = figure.axes[0]
    names = [text.get_text() for text in ax.get_yticklabels()]
    ((_, places, values, ends),) = marks(ax, across=True)
    assert places == list(range(len(ARMS)))
    for name, x, bar in zip(names, values, ends, strict=True):
        some, base = fresh(frame, name), fresh(frame, "full fine-tuning")
        interval = stats.ttest_rel(some, base).confidence_interval(0.95) if (some != base).any() else (0, 0)
        assert x == pytest.approx(100 * (some - base).mean())
        np.testing.assert_allclose(bar, 100 * np.array(interval), rtol=1e-9, atol=1e-12)
    dots = {names[round(line.get_ydata()[0])]: line.get_xdata() for line in ax.lines if line.get_marker() == "."}
    assert sorted(dots) == sorted(ARMS)
    for name, found in dots.items():
        each = fresh(frame, name) - fresh(frame, "full fine-tuning")
        np.testing.assert_allclose(sorted(found), sorted(100 * each))


def test_the_summary_has_the_difference_from_the_head_alone(frame: pd.DataFrame) -> None:
    table = METHODS.summary(frame).set_index("arm")
    assert list(table.index) == list(ARMS)
    some, head = fresh(frame, "prefix (20 tokens)"), fresh(frame, "head alone")
    low, high = stats.ttest_rel(some, head).confidence_interval(0.95)
    row = table.loc["prefix (20 tokens)"]
    assert row["over the head alone"] == f"{100 * (some - head).mean():+.2f} [{100 * low:.2f}, {100 * high:.2f}]"
    assert row["parameters"] == "92,000"


def built_in(**points: float) -> pd.DataFrame:
    """Points over the head alone by method (whole: LoRA on all maps), on every seed, with noise."""

    def score(run: dict[str, Any]) -> dict[str, Any]:
        method = "whole" if run["lora.rank"] == 384 else run["method"]
        accuracy = 0.7 + points.get(method, 0.0) / 100 + 1e-3 * unlike(run, "noise")
        return scored(run) | {"test/accuracy": accuracy}

    return made("methods", score)


@pytest.mark.parametrize(("points", "verdict"), [(6.0, HELD), (9.8, CONTRADICTED), (8.0, EQUIVALENT)])
def test_lora_is_compared_with_full_fine_tuning(points: float, verdict: str) -> None:
    frame = built_in(lora=8.0, full=points)
    assert verdicts("methods", frame)[0] == verdict
    assert claims("methods", frame)[0].found.estimate == pytest.approx((8 - points) / 100, abs=1e-3)


@pytest.mark.parametrize(
    ("points", "verdict"), [(8.3, HELD), (7.7, HELD), (10.0, CONTRADICTED), (6.0, CONTRADICTED), (8.5, CONTRADICTED)]
)
def test_full_rank_recovers_full_fine_tuning_where_the_interval_is_inside_half_a_point(
    points: float, verdict: str
) -> None:
    frame = built_in(whole=points, full=8.0)
    assert verdicts("methods", frame)[1] == verdict and claims("methods", frame)[1].exact


def test_lora_is_compared_with_what_has_nearly_its_size() -> None:
    frame = built_in(lora=3.0, houlsby=0.5, pfeiffer=4.0)
    others = {
        "Houlsby (size 64), 620,800": HELD,
        "Pfeiffer (size 64), 320,000": CONTRADICTED,
        "BitFit, 41,000": HELD,
        "prefix (20 tokens), 92,000": HELD,
    }
    assert dict(zip([claim.arm for claim in claims("methods", frame)], verdicts("methods", frame), strict=True)) == {
        METHODS.LORA: CONTRADICTED,
        "LoRA on all maps and biases (r = 384)": HELD,
        **others,
    } | {METHODS.LORA: HELD}
    assert verdicts("methods", built_in())[2:] == [EQUIVALENT] * 4


def test_a_diverged_fresh_run_leaves_a_gap_and_no_test(frame: pd.DataFrame) -> None:
    gone = rows_of(frame, "Pfeiffer (size 64)") & (frame["stage"] == "confirm") & (frame["seed"] == 103)
    assert int(gone.sum()) == 1
    blank = {name: frame[name].mask(gone) for name in METHODS.SCORES}
    spoilt = frame.assign(status=frame["status"].mask(gone, "diverged"), **blank)
    with drawn("methods", spoilt) as figure:
        ((_, _, values, _),) = marks(figure.axes[0], across=True)
        assert np.isnan(values).sum() == 1
    untested = [claim.arm for claim in claims("methods", spoilt) if np.isnan(claim.found.low)]
    assert untested == ["Pfeiffer (size 64), 320,000"]


@pytest.mark.parametrize("name", ["Pfeiffer (size 64)", "LoRA on all maps and biases (r = 384)", "head alone"])
def test_a_row_that_is_not_there_is_named(frame: pd.DataFrame, tmp_path: Path, name: str) -> None:
    results.save(frame, tmp_path / "x.csv")
    assert len(results.load_results("methods", path=tmp_path / "x.csv")) == 255
    for stage, runs in {"grid": len(ARMS) * TRIALS, "confirm": len(ARMS) * len(FRESH)}.items():
        one = frame[rows_of(frame, name) & (frame["stage"] == stage)].index[0]
        results.save(frame.drop(index=one), tmp_path / "x.csv")
        cell = rf"no row for .*method={ARMS[name][0]} .*\(1 of {runs} runs have none\)"
        with pytest.raises(UserError, match=cell):
            results.load_results("methods", path=tmp_path / "x.csv")
