"""toy_linear: the figure shows the CSV, and the claims find the built-in exponents."""

import io
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from loralab.studies import results
from loralab.studies.verdicts import CONTRADICTED, HELD, UNKNOWN
from loralab.theory.gamma import RATES, exponents
from loralab.theory.survey import FULL, SMOKE
from tests.analysis.frames import claims, drawn, module, verdicts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TOY = module("toy_linear")
EQUAL = ("A", "sgd", "1/sqrt(n)", "f", 2)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """The smoke size as read from its CSV, in another order."""
    text = TOY.measure(True).assign(commit="c" * 40, diff=None).to_csv(index=False, float_format="%.10g")
    whole = pd.read_csv(io.StringIO(text), dtype=dict.fromkeys(results.TEXTS, str))
    return whole.sample(frac=1, random_state=0).reset_index(drop=True)


@pytest.fixture(scope="module")
def figure(frame: pd.DataFrame) -> Iterator["Figure"]:
    with drawn("toy_linear", frame) as found:
        yield found


def built(change: Callable[[pd.DataFrame], Any]) -> pd.DataFrame:
    """The rows of the full size with the calculus's exponents and noise of .001, after `change`."""
    rng = np.random.default_rng(0)
    frame: pd.DataFrame = TOY.wanted(False)
    value = np.zeros(len(frame))
    rows: Any = frame.itertuples()
    for at, row in enumerate(rows):
        if row.part == "exponent":
            value[at] = exponents(row.init, row.optimizer, RATES[str(row.rates)], 3)[int(row.step) - 1][
                str(row.quantity)
            ]
        elif row.part == "stable":
            value[at] = 2 ** (-row.log2_n * {"A": 0.5, "B": 1.0}[row.init] * (row.rates == "equal"))
        elif row.part == "best":
            value[at] = 2**row.log2_n
    frame["predicted"] = value
    frame["value"] = value + np.where(frame["part"] == "exponent", 0.001 * rng.standard_normal(len(frame)), 0)
    frame["value"] *= np.where(frame["part"] == "exponent", 1, 1 + 0.001 * rng.standard_normal(len(frame)))
    frame["value"] = change(frame)
    return frame


def plain(frame: pd.DataFrame) -> Any:
    return frame["value"]


def is_exponent(frame: pd.DataFrame, *key: Any) -> Any:
    wanted = zip(("part", "init", "optimizer", "rates", "quantity", "step"), ("exponent", *key), strict=True)
    return np.logical_and.reduce([frame[name] == value for name, value in wanted])


def test_what_the_papers_say_is_held_where_it_is_built_in() -> None:
    found = claims("toy_linear", built(plain))
    assert verdicts("toy_linear", built(plain)) == [HELD] * 7
    expected = [1, 1, -0.5, 0.5, 0, 0, 0.5]
    np.testing.assert_allclose([claim.found.estimate for claim in found], expected, atol=0.003)
    assert {claim.found.n for claim in found} == {FULL.seeds}


def test_an_exponent_of_the_other_sign_is_no_longer_held() -> None:
    turned = built(lambda frame: frame["value"].mask(is_exponent(frame, *EQUAL), -frame["value"]))
    assert verdicts("toy_linear", turned) == [HELD, HELD, CONTRADICTED, HELD, HELD, HELD, HELD]


@pytest.mark.parametrize(
    ("shift", "noise", "verdict"),
    [(0.3, 0, CONTRADICTED), (-0.3, 0, CONTRADICTED), (0.1, 0, HELD), (-0.1, 0, HELD), (0.3, 2.0, UNKNOWN)],
)
def test_one_delta_that_moves_with_width_is_enough(shift: float, noise: float, verdict: str) -> None:
    """For either init and any later step; an exponent with a wide interval decides nothing."""

    def moved(frame: pd.DataFrame) -> Any:
        there = is_exponent(frame, "B", "sign", "1/n and 1", "delta2", 3) & (frame["range"] == "small")
        assert there.sum() == FULL.seeds
        return frame["value"] + there * (shift + noise * np.resize([-1.0, 1.0], len(frame)))

    found = verdicts("toy_linear", built(moved))
    assert found[5] == verdict and found[:5] + found[6:] == [HELD] * 6


def lines(ax: Any) -> list[Any]:
    return [np.array(line.get_data(), dtype=float) for line in ax.lines]


def test_every_finite_exponent_is_set_against_the_calculus(frame: pd.DataFrame, figure: "Figure") -> None:
    ax: Any = figure.axes[0]
    rows = frame[(frame["part"] == "exponent") & np.isfinite(frame["value"])]
    for at, where in enumerate(("small", "large")):
        own = rows[rows["range"] == where].groupby(["init", "optimizer", "rates", "quantity", "step"])
        expected = np.array([own["predicted"].first(), own["value"].mean()])
        np.testing.assert_allclose(np.sort(lines(ax)[at]), np.sort(expected))


def test_the_plane_marks_what_is_within_a_tenth_of_the_lowest(frame: pd.DataFrame, figure: "Figure") -> None:
    ax: Any = figure.axes[2]
    plane = frame[(frame["part"] == "plane") & (frame["init"] == "A")]
    for line, (_, own) in zip(lines(ax)[:2], plane.groupby("log2_n"), strict=False):
        near = own[own["value"] <= 1.1 * own["value"].min()]
        np.testing.assert_array_equal(line, [near["lr_A"], near["lr_B"]])
    assert bool(ax.collections) == bool((plane["value"] <= 0.05).any())


def test_each_ratio_has_the_lowest_loss_among_its_pairs(frame: pd.DataFrame) -> None:
    plane = frame[(frame["part"] == "plane") & (frame["init"] == "A") & (frame["log2_n"] == 7)]
    found = TOY.over_ratio(plane)
    for log2, loss in found.items():
        pairs = plane[
            (plane["lr_B"] / plane["lr_A"] >= 2 ** (log2 + 7)) & (plane["lr_B"] / plane["lr_A"] < 2 ** (log2 + 8))
        ]
        assert loss == pairs["value"].min()
    assert set(found.index) == {b - a - 7 for a in SMOKE.lr_a for b in SMOKE.lr_b}


def test_the_summary_has_the_calculus_beside_both_ranges(frame: pd.DataFrame) -> None:
    table = TOY.summary(frame)
    assert len(table) == 2 * 2 * (3 * 5 + 2)
    row = table[(table["init"] == "A") & (table["optimizer"] == "SGD") & (table["rates"] == "c/√n")]
    row = row[row["exponent of"] == "f, step 2"].iloc[0]
    own = frame[is_exponent(frame, *EQUAL)].groupby("range")["value"].mean()
    assert row["calculus"] == -0.5 and row["n = 2^40 to 2^60"] == pytest.approx(own["large"], abs=1e-3)
    assert row["n = 2^5 to 2^14"] == pytest.approx(own["small"], abs=1e-3)


def test_the_caption_says_which_code(frame: pd.DataFrame) -> None:
    assert TOY.caption(frame).endswith(", code ccccccc.")
