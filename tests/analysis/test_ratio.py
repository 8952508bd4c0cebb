"""ratio: rates are selected on the grid, arms are compared on fresh seeds, and claims find built-in differences."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from loralab.studies.stats import bootstrap_items
from tests.analysis.frames import claims, distinct, drawn, made, marks, module, unlike, verdicts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RATIO = module("ratio")
RATIOS, FRESH, ITEMS = (0.25, 1, 2, 4, 8, 16, 32, 64), range(100, 105), 400
GROUPS = [(task, init) for task in ("rotten_tomatoes", "trec") for init in "AB"]


def right(run: dict[str, Any]) -> Any:
    """The test items that a run got right: a random half, different for each run."""
    return np.random.default_rng(int(unlike(run, "right") * 2**32)).random(ITEMS) < 0.5


def packed(flags: Any) -> str:
    return f"{len(flags)}:{np.packbits(flags).tobytes().hex()}"


def better(points: float, *, noise: float = 1e-3, log2: float = 2.0) -> pd.DataFrame:
    """λ = 16 beats all others by these points on every seed, with noise; losses are lowest at this log2 of λ."""

    def score(run: dict[str, Any]) -> dict[str, Any]:
        level = unlike({"seed": run["seed"]}, "level") / 20
        centre = 8e-3 * run["lora.ratio"] ** -0.5
        loss = (
            0.4 + level + (np.log2(run["lora.ratio"]) - log2) ** 2 / 200 + np.log2(run["optim.lr"] / centre) ** 2 / 100
        )
        gain = points / 100 if run["lora.ratio"] == 16 else 0.0
        accuracy = 0.8 + level + gain + noise * (unlike(run, "noise") - 0.5)
        losses = {"test/loss": loss + noise * (unlike(run, "loss") - 0.5), "validation/loss": loss}
        return distinct(run) | losses | {"test/accuracy": accuracy, "correct": packed(right(run))}

    return made("ratio", score)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """A unique number in each cell, and random windows."""
    return made("ratio", lambda run: distinct(run) | {"correct": packed(right(run))}).sample(frac=1, random_state=0)


@pytest.fixture(scope="module")
def figure(frame: pd.DataFrame) -> Iterator["Figure"]:
    with drawn("ratio", frame) as found:
        yield found


def group(frame: pd.DataFrame, task: str, init: str, stage: str) -> pd.DataFrame:
    return frame[(frame["task"] == task) & (frame["lora.init"] == init) & (frame["stage"] == stage)]


def window(frame: pd.DataFrame, task: str, init: str, ratio: float) -> dict[float, float]:
    """lr_A -> mean validation loss, computed by hand."""
    rows = group(frame, task, init, "grid")
    rows = rows[rows["lora.ratio"] == ratio]
    found = {
        rate: rows.loc[rows["optim.lr"] == rate, "validation/loss"].tolist() for rate in sorted(set(rows["optim.lr"]))
    }
    assert {len(losses) for losses in found.values()} == {2} and len(found) == 5
    return {rate: sum(losses) / 2 for rate, losses in found.items()}


def fresh(frame: pd.DataFrame, task: str, init: str, ratio: float, metric: str) -> Any:
    rows = group(frame, task, init, "confirm")
    rows = rows[rows["lora.ratio"] == ratio].sort_values("seed")
    assert rows["seed"].tolist() == list(FRESH)
    return rows[metric].to_numpy(dtype=float)


def test_fresh_seeds_have_the_rate_with_the_lowest_mean_loss_of_the_window(frame: pd.DataFrame) -> None:
    for task, init in GROUPS:
        given = group(frame, task, init, "confirm")
        for ratio in RATIOS:
            means = window(frame, task, init, ratio)
            best = min(means, key=lambda rate: means[rate])
            assert given.loc[given["lora.ratio"] == ratio, "optim.lr"].tolist() == [best] * len(FRESH)


def test_marks_are_the_paired_differences_from_equal_rates_and_the_pooled_one(
    frame: pd.DataFrame, figure: "Figure"
) -> None:
    others = [ratio for ratio in RATIOS if ratio != 1]
    for ax, metric, scale in zip(figure.axes, ("test/accuracy", "test/loss"), (100, 1), strict=True):
        *settings, (name, _, values, ends) = marks(ax, across=True)
        for (task, init), (label, _, middle, bars) in zip(GROUPS, settings, strict=True):
            assert label.endswith(f"init {init}")
            one = fresh(frame, task, init, 1, metric)
            for ratio, x, bar in zip(others, middle, bars, strict=True):
                scores = fresh(frame, task, init, ratio, metric)
                assert x == pytest.approx(scale * (scores - one).mean())
                expected = [scale * end for end in stats.ttest_rel(scores, one).confidence_interval(0.95)]
                assert bar == pytest.approx(expected)
        effects = [RATIO.pooled(frame, ratio, metric).effect for ratio in others]
        assert name == "pooled" and values == pytest.approx([scale * each.estimate for each in effects])
        assert ends[0] == pytest.approx([scale * effects[0].low, scale * effects[0].high])


def test_the_margin_and_what_the_paper_claims_are_bands(figure: "Figure") -> None:
    bands = {patch.get_label() for patch in figure.axes[0].patches}
    assert {"counts as none: up to 0.5", "LoRA+ claims 1 to 2"} <= bands


def test_one_setting_has_no_pooled_row(frame: pd.DataFrame) -> None:
    one = frame[(frame["task"] == "trec") & (frame["lora.init"] == "A")]
    with drawn("ratio", one) as figure:
        assert [label for label, *_ in marks(figure.axes[0], across=True)] == ["TREC, init A"]
    assert "pooled" in RATIO.caption(frame) and "pooled" not in RATIO.caption(one)


def test_the_summary_has_both_intervals_of_the_difference(frame: pd.DataFrame) -> None:
    table = RATIO.summary(frame)
    assert len(table) == len(GROUPS) * len(RATIOS)
    row = table[(table["task"] == "trec") & (table["init"] == "B") & (table["ratio"] == 16)].iloc[0]
    scores, one = (fresh(frame, "trec", "B", ratio, "test/accuracy") for ratio in (16, 1))
    low, high = stats.ttest_rel(scores, one).confidence_interval(0.95)
    assert row["difference, points"] == f"{100 * (scores - one).mean():+.2f}"
    assert row["by seed"] == f"[{100 * low:.2f}, {100 * high:.2f}]"
    flags = []
    for ratio in (16, 1):
        rows = group(frame, "trec", "B", "confirm")
        rows = rows[rows["lora.ratio"] == ratio].sort_values("seed")
        digits = [text.partition(":")[2] for text in rows["correct"]]
        flags.append(np.array([np.unpackbits(np.frombuffer(bytes.fromhex(each), np.uint8))[:ITEMS] for each in digits]))
    items = bootstrap_items(*(each.astype(bool) for each in flags))
    assert row["by test item"] == f"[{100 * items.low:.2f}, {100 * items.high:.2f}]" and items.n == ITEMS


@pytest.mark.parametrize(("points", "verdict"), [(2.0, "held"), (0.0, "equivalent"), (-2.0, "contradicted in size")])
def test_the_pooled_gain_of_the_advice_is_what_was_built_in(points: float, verdict: str) -> None:
    frame = better(points, noise=0.01)
    gain, _ = RATIO.questions(frame)
    advice = gain.claims[0]
    assert advice.found.estimate == pytest.approx(points / 100, abs=2e-3) and advice.found.n == 20
    assert [claim.arm for claim in gain.claims] == [f"λ = {ratio}" for ratio in (16, 2, 4, 8, 32, 64)]
    assert verdicts("ratio", frame)[0] == verdict and advice.loss is not None
    assert advice.pooled is not None and [*advice.pooled.settings] == GROUPS


@pytest.mark.parametrize(("log2", "wanted"), [(4.2, ["held"] * 3), (-1.5, ["contradicted in size"] * 3)])
def test_the_ratio_of_the_lowest_loss_is_found_over_the_settings(log2: float, wanted: list[str]) -> None:
    frame = better(0.0, log2=log2)
    best = claims("ratio", frame)[-3:]
    assert [claim.found.estimate for claim in best] == pytest.approx([log2] * 3, abs=0.1)
    assert [claim.found.n for claim in best] == [20, 10, 10] and verdicts("ratio", frame)[-3:] == wanted


def test_one_setting_is_not_asked_for_its_lowest_loss(frame: pd.DataFrame) -> None:
    (gain,) = RATIO.questions(frame[(frame["task"] == "trec") & (frame["lora.init"] == "A")])
    assert gain.unit == "points"


def lines(losses: list[list[float]]) -> pd.DataFrame:
    """A window of rates 1, 2, 4, ... with these losses, one per seed."""
    rows = [(2.0**at, seed, loss) for at, of in enumerate(losses) for seed, loss in enumerate(of)]
    frame = pd.DataFrame(rows, columns=["optim.lr", "seed", "validation/loss"])
    return frame.assign(stage="grid", **{"lora.ratio": 4})


@pytest.mark.parametrize(
    ("losses", "inside"),
    [
        ([[0.5, 0.5], [0.4, 0.4], [0.5, 0.5]], True),
        ([[0.3, 0.3], [0.4, 0.4], [0.5, 0.5]], False),
        ([[0.5, 0.5], [0.4, 0.4], [0.3, 0.3]], False),
        ([[0.2, 0.4], [0.39, 0.39], [0.5, 0.5]], True),  # its standard error is .1
        ([[0.2, 0.4], [0.41, 0.41], [0.5, 0.5]], False),
        ([[0.2, 0.4], [0.1, np.nan], [0.5, 0.5]], False),  # inside, but a seed diverged
        ([[0.5], [0.4], [0.5]], True),
        ([[0.3], [0.4], [0.5]], False),
    ],
    ids=["inside", "first", "last", "tie", "no tie", "diverged", "one seed", "one seed, edge"],
)
def test_a_rate_is_interior_to_its_window_or_ties_with_one_that_is(losses: list[list[float]], inside: bool) -> None:
    assert RATIO.interior(lines(losses), 4) is inside


def test_a_diverged_fresh_run_leaves_its_arm_untested_and_the_others_as_they_were(frame: pd.DataFrame) -> None:
    gone = (frame["stage"] == "confirm") & (frame["task"] == "trec") & (frame["lora.init"] == "A")
    gone &= (frame["seed"] == 101) & (frame["lora.ratio"] == 16)
    assert int(gone.sum()) == 1
    empty = {name: frame[name].mask(gone) for name in [*RATIO.SCORES, "correct"]}
    spoilt = frame.assign(status=frame["status"].mask(gone, "diverged"), **empty)
    for before, after in zip(claims("ratio", frame)[:6], claims("ratio", spoilt)[:6], strict=True):
        assert np.isnan(after.found.low) == (before.arm == "λ = 16")
    table = RATIO.summary(spoilt)
    assert table["test accuracy"].isna().sum() == 1 and table["by test item"].isna().sum() == 1
    with drawn("ratio", spoilt) as figure:
        gaps = [int(np.isnan(values).sum()) for _, _, values, _ in marks(figure.axes[0], across=True)]
        assert gaps == [0, 0, 1, 0, 1]  # the pooled difference of this ratio too
