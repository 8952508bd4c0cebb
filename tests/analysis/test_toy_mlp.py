"""toy_mlp: the figure shows the CSV, and the claims find built-in differences of the losses."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from loralab import plotting
from loralab.studies.verdicts import CONTRADICTED, HELD
from loralab.theory.plane import ADVICE, ARMS, CURVE, EARLY, LATE
from tests.analysis.frames import claims, drawn, module, verdicts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TOY = module("toy_mlp")
WIDTHS, FRESH = (32, 64, 128, 256, 512, 1024), range(100, 110)


def rates(n: float, ratio: float, slope: float) -> tuple[float, float]:
    """A best pair with this ratio at n = 100 and a ratio that grows as n^slope at other widths; lr_A = 1/n."""
    return 1 / n, ratio * (n / 100) ** slope / n


def built(
    *, ratio: float = 64.0, slope: float = 1.0, gap: float = 1.5, advised: float = 1.2, noise: float = 0.05
) -> pd.DataFrame:
    """A frame with a bowl-shaped loss around the best pair; at equal rates, a multiple of the other arms' loss."""
    frame, rng = TOY.wanted(False), np.random.default_rng(0)
    best_A, best_B = rates(frame["n"].to_numpy(dtype=float), ratio, slope)
    bowl = 0.01 + np.log10(frame["lr_A"] / best_A) ** 2 / 100 + np.log10(frame["lr_B"] / best_B) ** 2 / 100
    seeded, equal, advice = frame["seed"].notna(), frame["arm"] == "equal", frame["arm"] == "advice"
    times = np.where(equal, gap, np.where(advice, gap / advised, 1.0))
    loss = np.where(seeded, 0.02 * times * 2.0 ** -(frame["step"] / 100), bowl)
    loss *= np.exp(noise * rng.standard_normal(len(frame)))
    chosen_A = np.where(seeded, best_A, np.nan) * np.exp(noise * rng.standard_normal(len(frame)))
    chosen_B = np.where(seeded, best_B, np.nan) * np.exp(noise * rng.standard_normal(len(frame)))
    chosen_B = np.where(equal, chosen_A, np.where(advice, ADVICE * chosen_A, chosen_B))
    scores = {"chosen_A": chosen_A, "chosen_B": chosen_B, "train": loss, "test": 1.1 * loss}
    found: pd.DataFrame = frame.assign(**scores, commit="c" * 40, diff=None)
    diverged = (frame["lr_A"] > 3) | (frame["lr_B"] > 3)
    found[["train", "test"]] = found[["train", "test"]].mask(diverged)
    return found


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return built().sample(frac=1, random_state=0)


@pytest.fixture(scope="module")
def figure(frame: pd.DataFrame) -> Iterator["Figure"]:
    with drawn("toy_mlp", frame) as found:
        yield found


def lowest(rows: pd.DataFrame, by: str) -> list[float]:
    best: Any = min(rows.to_dict("records"), key=lambda row: row[by] if row[by] == row[by] else np.inf)
    return [best["lr_A"], best["lr_B"]]


def test_a_heatmap_has_each_pairs_loss_the_best_and_the_best_of_equal_rates(
    frame: pd.DataFrame, figure: "Figure"
) -> None:
    panels = [(step, split) for step in (EARLY, LATE) for split in ("train", "test")]
    axes: list[Any] = figure.axes[:4]
    for ax, (step, split) in zip(axes, panels, strict=True):
        rows = frame[(frame["part"] == "plane") & (frame["step"] == step)].sort_values(["lr_B", "lr_A"])
        values = np.ma.filled(ax.images[0].get_array(), np.nan)
        np.testing.assert_array_equal(values, rows[split].to_numpy().reshape(46, 46))
        assert np.isnan(values).any()
        star, ring = (10 ** np.ravel(points.get_offsets()) for points in ax.collections[-2:])
        np.testing.assert_allclose(star, lowest(rows, split))
        np.testing.assert_allclose(ring, lowest(rows[rows["lr_A"] == rows["lr_B"]], split))
        left, right, bottom, top = ax.images[0].get_extent()
        width = (right - left) / 46
        assert (left + width / 2, right - width / 2) == pytest.approx((-4, 1)) and (bottom, top) == (left, right)


def test_the_curves_are_of_the_seeds_that_chose_and_of_fresh_ones(frame: pd.DataFrame, figure: "Figure") -> None:
    ax: Any = figure.axes[4]
    expected = [(arm, fresh) for arm in ARMS for fresh in (False, True)]
    for line, (arm, fresh) in zip(ax.lines, expected, strict=True):
        rows = frame[(frame["part"] == "curve") & (frame["arm"] == arm) & (frame["seed"].isin(FRESH) == fresh)]
        assert rows["seed"].nunique() == (10 if fresh else 3)
        steps, losses = line.get_data()
        assert list(steps) == [step + 1 for step in CURVE]
        assert list(losses) == pytest.approx([np.median(rows.loc[rows["step"] == step, "train"]) for step in CURVE])


def test_dots_are_best_pairs_and_bars_reach_over_those_within_a_tenth(frame: pd.DataFrame, figure: "Figure") -> None:
    grids = [frame[(frame["part"] == "width") & (frame["n"] == n)] for n in WIDTHS]
    axes: list[Any] = figure.axes[5:7]
    for ax, names in zip(axes, (("lr_A", "lr_B"), ("ratio",)), strict=True):
        dots = [line for line in ax.lines if line.get_marker() == "o"]
        bars = [line for line in ax.lines if line.get_linewidth() == 2.5]
        for at, name in enumerate(names):
            for place, rows in enumerate(grids):
                rows = rows[rows["arm"] == ""].assign(ratio=rows["lr_B"] / rows["lr_A"])
                best = rows.nsmallest(1, "train")
                assert dots[at].get_ydata()[place] == best[name].item()
                near = rows.loc[rows["train"] <= 1.1 * best["train"].item(), name]
                assert list(bars[at * len(WIDTHS) + place].get_ydata()) == [near.min(), near.max()]


def test_the_gap_is_within_a_seed_with_an_interval_over_seeds(frame: pd.DataFrame, figure: "Figure") -> None:
    ax: Any = figure.axes[7]
    for bars, arm in zip(ax.containers, ("best", "advice"), strict=True):
        for at, n in enumerate(WIDTHS):
            rows = frame[(frame["part"] == "own") & (frame["n"] == n)].sort_values("seed")
            other, equal = (np.log(rows.loc[rows["arm"] == each, "test"].to_numpy()) for each in (arm, "equal"))
            assert len(other) == 6
            low, high = stats.ttest_rel(equal, other).confidence_interval(0.95)
            assert bars.lines[0].get_ydata()[at] == pytest.approx(np.exp((equal - other).mean()))
            assert bars.lines[2][0].get_segments()[at][:, 1] == pytest.approx(np.exp([low, high]))


def test_what_was_built_in_is_claimed() -> None:
    found = claims("toy_mlp", built())
    assert verdicts("toy_mlp", built()) == [HELD] * 5
    assert [claim.found.estimate for claim in found] == pytest.approx([1.5, 64, 1.2, 1.0, -1.0], rel=0.1)
    assert [claim.found.n for claim in found] == [10, 10, 10, 6, 6]


@pytest.mark.parametrize(
    ("built_in", "expected"),
    [
        ({"ratio": 1 / 64}, [HELD, CONTRADICTED, HELD, HELD, HELD]),
        ({"gap": 0.7}, [CONTRADICTED, HELD, HELD, HELD, HELD]),
        ({"advised": 0.8}, [HELD, HELD, CONTRADICTED, HELD, HELD]),
        ({"slope": -1.0}, [HELD, HELD, HELD, CONTRADICTED, HELD]),
    ],
    ids=["lr_A above lr_B", "equal rates better", "advice worse", "ratio falls with n"],
)
def test_what_was_not_built_in_is_not(built_in: dict[str, float], expected: list[str]) -> None:
    assert verdicts("toy_mlp", built(**built_in)) == expected


def test_a_run_that_diverged_on_a_fresh_seed_is_counted_and_leaves_the_median_whole(frame: pd.DataFrame) -> None:
    assert "0 and 0 of these runs diverged" in TOY.caption(frame)
    gone = (frame["part"] == "curve") & (frame["arm"] == "equal") & frame["seed"].isin([101, 103, 104])
    gone &= frame["step"] >= 5
    spoilt = frame.assign(test=frame["test"].mask(gone), train=frame["train"].mask(gone))
    assert "0 and 3 of these runs diverged" in TOY.caption(spoilt)
    assert claims("toy_mlp", spoilt) == claims("toy_mlp", frame)
    with drawn("toy_mlp", spoilt) as figure:
        ax: Any = figure.axes[4]
        assert np.isfinite(ax.lines[3].get_ydata()).all()


def test_the_summary_has_the_pairs_and_says_where_one_is_at_an_edge(frame: pd.DataFrame) -> None:
    table = TOY.summary(frame)
    assert table[["n", "step"]].to_numpy().tolist() == [[100, EARLY], [100, LATE], *([n, LATE] for n in WIDTHS)]
    assert table["interior"].all()
    edge = TOY.summary(built(ratio=1e-4))
    assert not edge["interior"].any()


def test_the_caption_tells_what_the_printed_setup_gives(frame: pd.DataFrame) -> None:
    text = TOY.caption(frame)
    rows = frame[(frame["part"] == "plane") & (frame["step"] == LATE)]
    lr_A, lr_B = (plotting.short(rate) for rate in lowest(rows, "train"))
    assert f"here, by training loss at step {LATE}, it is lr_A = {lr_A}, lr_B = {lr_B}, loss " in text
    assert text.endswith("code ccccccc.") and "means of 3 seeds" in text and f"Over {len(FRESH)} fresh seeds" in text
