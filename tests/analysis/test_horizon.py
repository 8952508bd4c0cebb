"""horizon: a built-in fall of the tuned rate is found, and regrets are those of the rates that are chosen early."""

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from loralab.studies.thinned_curves import SHARES
from tests.analysis.frames import claims, distinct, drawn, made, module, unlike, verdicts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HORIZON = module("horizon")
FALL, C = -0.4, 0.0167


@functools.cache
def built(early: float = 0.0, noise: float = 0.0) -> pd.DataFrame:
    """Final losses are parabolas around c / sqrt(r λ s) (steps / 100)^FALL; at a share of the steps the lowest point is
    `early` doublings higher for each halving of the share.
    """

    def score(run: dict[str, Any]) -> dict[str, Any]:
        best = C / np.sqrt(8 * run["lora.ratio"]) * (run["train.steps"] / 100) ** FALL
        away = np.log2(run["optim.lr"] / best)
        losses = {
            share: 0.3 + (1 - share) + (away - early * -np.log2(share)) ** 2 / 20 + noise * unlike(run, "noise")
            for share in (*SHARES, 1.0)
        }
        curve = {f"validation/loss@{share:g}": losses[share] for share in SHARES}
        return distinct(run) | {"validation/loss": losses[1.0]} | curve

    return made("horizon", score)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return built(early=0.5, noise=2e-3)


def test_the_exponent_and_c_are_those_that_were_built_in() -> None:
    exact = built()
    found = HORIZON.exponent(exact)
    assert found.estimate == pytest.approx(FALL) and found.n == 18
    assert HORIZON.c_at_100(exact) == pytest.approx(C)
    summary = HORIZON.summary(exact)
    assert len(summary) == 18 and summary["interior"].all()
    assert summary["c"].tolist() == pytest.approx((C * (summary["steps"] / 100) ** FALL).tolist(), rel=0.01)


def test_an_arm_whose_best_rate_is_at_its_end_is_left_out_of_the_fit(frame: pd.DataFrame) -> None:
    own = (frame["train.steps"] == 800) & (frame["lora.ratio"] == 4)
    cut = frame[~(own & (frame["optim.lr"] > 8e-4))]  # 4e-4 and 8e-4 are left
    assert HORIZON.exponent(cut).n == 17
    assert not HORIZON.summary(cut).set_index(["steps", "ratio"]).loc[(800, 4), "interior"]


def test_a_prefix_whose_valley_is_where_it_ends_has_no_regret_and_a_shifted_one_has() -> None:
    assert (HORIZON.prefixes(built())["regret"] == 0).all()
    shifted = HORIZON.prefixes(built(early=1.0)).groupby("share")["regret"].mean()
    assert shifted[0.1] > shifted[0.3] > shifted[0.9]


def test_a_short_runs_rate_is_too_high_unless_it_is_scaled() -> None:
    exact = built()
    plain, scaled = HORIZON.short_runs(exact), HORIZON.short_runs(exact, scaled=True)
    assert len(plain) == len(scaled) == 3 * (3 + 4 + 5)  # shorter lengths of 200, 400 and 800, for each ratio
    far = plain["short"] * 8 <= plain["long"]
    assert plain[far]["regret"].mean() > 0.02 > 2 * scaled[far]["regret"].mean()
    assert plain["share"].tolist() == (plain["short"] / plain["long"]).tolist()


def test_a_rate_outside_the_longer_window_is_marked() -> None:
    found = HORIZON.short_runs(built())
    own = found[(found["short"] == 25) & (found["ratio"] == 4)].set_index("long")["outside"]
    assert own.to_dict() == {200.0: False, 400.0: True, 800.0: True}  # 5.1e-3: their windows end at 3.2e-3


def test_a_diverged_rate_counts_as_the_worst_of_its_window() -> None:
    frame = built()
    first = (frame["train.steps"] == 400) & (frame["lora.ratio"] == 1)
    lost = first & (frame["validation/loss"] == frame.loc[first, "validation/loss"].min())
    gone = frame.assign(**{"validation/loss": frame["validation/loss"].mask(lost)})
    regret = HORIZON.prefixes(gone).set_index(["steps", "ratio", "share"]).loc[(400, 1), "regret"]
    worst = gone.loc[first, "validation/loss"].max() - gone.loc[first, "validation/loss"].min()
    assert regret.tolist() == pytest.approx([worst] * len(SHARES))


def test_the_claims_follow_what_was_built_in(frame: pd.DataFrame) -> None:
    frame = built(noise=2e-3)
    (claim,) = claims("horizon", frame)
    assert verdicts("horizon", frame) == ["held"] and claim.found.estimate == pytest.approx(FALL, abs=0.1)


@pytest.fixture(scope="module")
def figure(frame: pd.DataFrame) -> Iterator["Figure"]:
    with drawn("horizon", frame) as found:
        yield found


def test_the_figure_shows_the_arms_and_the_regrets(frame: pd.DataFrame, figure: "Figure") -> None:
    left, middle, right = figure.axes
    dots = [line for line in left.lines if line.get_marker() == "o"]
    assert sum(len(np.asarray(line.get_xdata())) for line in dots) == 18
    assert f"steps$^{{{HORIZON.exponent(frame).estimate:.2f}}}$" in left.get_title(loc="left")
    assert len([line for line in middle.lines if line.get_marker() == "o"]) == 6
    own = next(line for line in right.lines if line.get_marker() == "^")
    means = HORIZON.prefixes(frame).groupby("share")["regret"].mean()
    assert np.asarray(own.get_ydata()).tolist() == pytest.approx(means.tolist())
