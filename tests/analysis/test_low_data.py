"""low_data: a method is a line over the sizes, including all examples; gains are paired with LoRA's."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

LOW = module("low_data")
SIZES, METHODS = (100, 300, 1000, 3200), ("head", "lora", "lora_plus", "full")


def examples(run: dict[str, Any]) -> float:
    """The number of examples in the records: all of TREC's are 3,200."""
    rows = run["task.train_rows"]
    return 3200 if rows is None or np.isnan(rows) else float(rows)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    scores = made("low_data", lambda run: distinct(run) | {"examples": examples(run), "correct": ""})
    return scores.sample(frac=1, random_state=0)


@pytest.fixture(scope="module")
def figure(frame: pd.DataFrame) -> Iterator["Figure"]:
    with drawn("low_data", frame) as found:
        yield found


def fresh(frame: pd.DataFrame, method: str, size: int, metric: str) -> Any:
    rows = frame[(frame["stage"] == "confirm") & (frame["method"] == method)]
    given = rows["task.train_rows"].isna() if size == SIZES[-1] else rows["task.train_rows"] == size
    rows = rows[given].sort_values("seed")
    assert rows["seed"].tolist() == list(range(100, 105))
    return rows[metric].to_numpy(dtype=float)


def test_a_line_is_a_method_with_the_interval_of_each_mean(frame: pd.DataFrame, figure: "Figure") -> None:
    methods = ("lora", "lora_plus", "full")
    found = marks(figure.axes[0])
    assert [label for label, *_ in found] == [LOW.METHODS[method] for method in methods]
    for method, (_, places, middle, ends) in zip(methods, found, strict=True):
        for size, x, y, bar in zip(SIZES, places, middle, ends, strict=True):
            scores = fresh(frame, method, size, "test/accuracy")
            assert y == pytest.approx(scores.mean()) and abs(np.log2(x / size)) < 0.5
            assert bar == pytest.approx(list(stats.ttest_1samp(scores, 0).confidence_interval(0.95)))


def test_gains_over_lora_are_paired_by_seed_and_the_fewest_examples_stand_apart(
    frame: pd.DataFrame, figure: "Figure"
) -> None:
    first, rest = (marks(ax, across=True) for ax in figure.axes[1:])
    for at, method in enumerate(("lora_plus", "full")):
        values, bars = ([*first[at][part], *rest[at][part]] for part in (2, 3))
        for size, x, bar in zip(SIZES, values, bars, strict=True):
            some, base = (fresh(frame, each, size, "test/accuracy") for each in (method, "lora"))
            assert x == pytest.approx(100 * (some - base).mean())
            assert bar == pytest.approx([100 * end for end in stats.ttest_rel(some, base).confidence_interval(0.95)])


def test_every_arm_has_as_many_trials_and_the_head_its_pinned_rate() -> None:
    """Except for the head alone, whose own rate is tuned."""
    with open_study("low_data", ("tracker=none",)) as study:
        configs = [study.composer.settings(job) for job in study.grid]
    arms = [(config.task.train_rows, config.method.name, config.lora.ratio) for config in configs]
    assert len(set(arms)) == 16 and {arms.count(arm) for arm in arms} == {10}
    assert {config.train.steps for config in configs} == {100}
    for config in configs:
        assert config.optim.head_lr == (config.optim.lr if config.method.name == "head" else 4e-3)
    assert {config.lora.ratio for config in configs} == {1, 4}


def built_in(plus: float, full: float) -> pd.DataFrame:
    """Points that LoRA+ and full fine-tuning gain over LoRA at each size, with noise."""

    def score(run: dict[str, Any]) -> dict[str, Any]:
        gain = {"lora_plus": plus, "full": full}.get(run["method"], 0.0) / 100
        accuracy = 0.7 + gain + 1e-3 * unlike(run, "noise")
        return distinct(run) | {"test/accuracy": accuracy, "examples": examples(run), "correct": ""}

    return made("low_data", score)


@pytest.mark.parametrize(
    ("plus", "full", "wanted"), [(1.2, 2.0, (CONTRADICTED, HELD)), (-1.0, -2.0, (HELD, CONTRADICTED))]
)
def test_the_claims_follow_what_was_built_in(plus: float, full: float, wanted: tuple[str, str]) -> None:
    frame = built_in(plus, full)
    assert verdicts("low_data", frame) == [wanted[0]] * 2 + [wanted[1]] * 2
    lora, _, lora_plus, _ = found = claims("low_data", frame)
    assert [claim.arm for claim in found] == ["300 to 3,200 examples", "100 examples"] * 2
    assert lora.found.estimate == pytest.approx(-full / 100, abs=1e-3)
    assert lora_plus.found.estimate == pytest.approx(plus / 100, abs=1e-3)
    assert verdicts("low_data", built_in(0.0, 0.0)) == [EQUIVALENT] * 4


def test_a_diverged_fresh_run_leaves_a_gap(frame: pd.DataFrame) -> None:
    gone = (frame["stage"] == "confirm") & (frame["method"] == "full") & (frame["examples"] == 300)
    gone &= frame["seed"] == 102
    assert int(gone.sum()) == 1
    spoilt = frame.assign(status=frame["status"].mask(gone, "diverged"), **{n: frame[n].mask(gone) for n in LOW.SCORES})
    with drawn("low_data", spoilt) as figure:
        left, _, rest = figure.axes
        assert np.isnan(marks(left)[2][2]).tolist() == [False, True, False, False]
        assert np.isnan(marks(rest, across=True)[1][2]).tolist() == [True, False, False]
    assert [np.isnan(claim.found.low) for claim in claims("low_data", spoilt)] == [True, False, False, False]


@pytest.mark.parametrize("rows", [100, None])
def test_a_row_that_is_not_there_is_named(frame: pd.DataFrame, tmp_path: Path, rows: int | None) -> None:
    """Also a row with all examples, whose cell of the axis is empty."""
    results.save(frame, tmp_path / "x.csv")
    assert len(results.load_results("low_data", path=tmp_path / "x.csv")) == 240
    has = frame["task.train_rows"].isna() if rows is None else frame["task.train_rows"] == rows
    for stage, total in (("grid", 160), ("confirm", 80)):
        one = frame[has & (frame["stage"] == stage)].index[0]
        results.save(frame.drop(index=one), tmp_path / "x.csv")
        cell = "null" if rows is None else str(rows)
        with pytest.raises(UserError, match=rf"no row for .*task\.train_rows={cell} .*\(1 of {total} runs"):
            results.load_results("low_data", path=tmp_path / "x.csv")
