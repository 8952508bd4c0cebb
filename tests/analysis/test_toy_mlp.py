"""toy_mlp: the figure shows the CSV, and the claims find built-in differences of the losses."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from loralab.studies.verdicts import CONTRADICTED, HELD
from loralab.theory.plane import ADVICE, EARLY, LATE
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


def test_the_heatmap_has_each_pairs_loss_the_best_and_the_best_of_equal_rates(
    frame: pd.DataFrame, figure: "Figure"
) -> None:
    ax: Any = figure.axes[0]
    rows = frame[(frame["part"] == "plane") & (frame["step"] == LATE)].sort_values(["lr_B", "lr_A"])
    values = np.ma.filled(ax.images[0].get_array(), np.nan)
    np.testing.assert_array_equal(values, rows["train"].to_numpy().reshape(46, 46))
    assert np.isnan(values).any()
    marked = {mark.get_label(): 10 ** np.ravel(mark.get_offsets()) for mark in ax.collections}
    np.testing.assert_allclose(marked["lowest"], lowest(rows, "train"))
    equal = lowest(rows[rows["lr_A"] == rows["lr_B"]], "train")
    np.testing.assert_allclose(marked["lowest at equal rates"], equal)
    left, right, bottom, top = ax.images[0].get_extent()
    width = (right - left) / 46
    assert (left + width / 2, right - width / 2) == pytest.approx((-4, 1)) and (bottom, top) == (left, right)


def test_dots_are_the_best_pair_of_the_means_and_small_ones_each_seeds_best(
    frame: pd.DataFrame, figure: "Figure"
) -> None:
    grids = [frame[(frame["part"] == "width") & (frame["n"] == n) & (frame["arm"] == "")] for n in WIDTHS]
    for ax, names in zip(cast(Any, figure.axes[1:3]), (("lr_A", "lr_B"), ("ratio",)), strict=True):
        dots = [line for line in ax.lines if line.get_marker() == "o"]
        small = [line for line in ax.lines if line.get_marker() == "." and len(line.get_ydata())]  # not the legend's
        assert len(small) == len(names) * len(WIDTHS) and {len(line.get_ydata()) for line in small} == {6}
        for dot, name in zip(dots, names, strict=True):
            best = [rows.assign(ratio=rows["lr_B"] / rows["lr_A"]).nsmallest(1, "train")[name].item() for rows in grids]
            assert list(dot.get_ydata()) == best


def test_the_gap_is_within_a_seed_with_an_interval_over_seeds(frame: pd.DataFrame, figure: "Figure") -> None:
    ax: Any = figure.axes[3]
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


def test_the_summary_has_the_pairs_and_says_where_one_is_at_an_edge(frame: pd.DataFrame) -> None:
    table = TOY.summary(frame)
    assert table[["n", "step"]].to_numpy().tolist() == [[100, EARLY], [100, LATE], *([n, LATE] for n in WIDTHS)]
    assert table["interior"].all()
    edge = TOY.summary(built(ratio=1e-4))
    assert not edge["interior"].any()


def test_the_caption_tells_what_the_printed_setup_gives(frame: pd.DataFrame) -> None:
    text, ratio = TOY.caption(frame), TOY.doublings(frame)
    assert f"At n = 100: log2 λ {ratio.estimate:.1f} [{ratio.low:.1f}, {ratio.high:.1f}], equal rates over λ" in text
    assert text.endswith("code ccccccc.") and "a: 3 seeds" in text
