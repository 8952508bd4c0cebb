"""The measured rows: exactly the wanted ones, each with the value for its keys, and different for each seed."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from loralab.theory import survey
from loralab.theory.gamma import QUANTITIES, RATES, exponents
from loralab.theory.linear import fitted, losses, start, train
from loralab.theory.survey import SMOKE, C

KEYS = [*survey.KEYS]


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return pd.DataFrame(survey.measured(SMOKE))


def the(rows: pd.DataFrame, **keys: Any) -> Any:
    """The value of the only row with these keys."""
    for key, value in keys.items():
        rows = rows[rows[key] == value]
    assert len(rows) == 1
    return rows["value"].iloc[0]


def test_every_wanted_row_is_measured_once_and_no_other(rows: pd.DataFrame) -> None:
    wanted = pd.DataFrame(survey.wanted(SMOKE), columns=KEYS)
    assert not wanted.duplicated().any()
    found = rows[KEYS].merge(wanted, how="outer", indicator=True)
    assert len(found) == len(rows) and (found["_merge"] == "both").all()
    assert len(survey.wanted(survey.FULL)) > 5 * len(wanted)


def begun(init: Any, what: str, n: int, seed: int) -> Any:
    rng = np.random.default_rng(["AB".index(init), ["large", "small", "stable", "plane"].index(what), seed])
    return start(init, 2.0**n, 8, rng, vectors=n <= 14)


@pytest.mark.parametrize(("init", "optimizer", "rates", "where"), [("A", "sgd", "1/sqrt(n)", "small"),
                                                                  ("B", "sign", "1/n and 1", "large")])  # fmt: skip
def test_an_exponent_is_the_slope_of_its_seeds_medians(
    init: Any, optimizer: Any, rates: str, where: str, rows: pd.DataFrame
) -> None:
    widths = SMOKE.widths[where]
    for seed in range(2):
        medians = []
        for n in widths:
            lr_a, lr_b = (C * 2.0 ** (n * gamma) for gamma in RATES[rates])
            decay = {"sgd": 1, "sign": 0.9}[optimizer]
            path = train(begun(init, where, n, seed), lr_a, lr_b, steps=3, optimizer=optimizer, decay=decay)
            medians.append({name: np.median(np.abs(path[name]), axis=1) for name in QUANTITIES})
        at = {"init": init, "optimizer": optimizer, "rates": rates, "range": where, "seed": seed}
        for name in QUANTITIES:
            for step in (1, 2, 3):
                slope = fitted(widths, [each[name][step - 1] for each in medians])
                assert the(rows, **at, quantity=name, step=step) == pytest.approx(slope, abs=1e-9)


def test_a_row_of_an_exponent_has_what_the_calculus_predicts(rows: pd.DataFrame) -> None:
    found = rows[rows["part"] == "exponent"]
    for _, row in found.iterrows():
        gamma = exponents(row["init"], row["optimizer"], RATES[row["rates"]], 3)[int(row["step"]) - 1]
        assert row["predicted"] == gamma[row["quantity"]]
    zero = found[found["predicted"] == -np.inf]
    assert len(zero) and (zero["value"] == -np.inf).all()


def test_a_plane_is_the_mean_loss_and_the_best_pair_is_a_seeds_own(rows: pd.DataFrame) -> None:
    plane = rows[(rows["part"] == "plane") & (rows["init"] == "B") & (rows["log2_n"] == 7)]
    assert len(plane) == len(SMOKE.lr_a) * len(SMOKE.lr_b)
    every: dict[int, dict[tuple[float, float], float]] = {0: {}, 1: {}}
    for pair in zip(plane["lr_A"], plane["lr_B"], strict=True):
        for seed, own in every.items():
            own[pair] = losses(train(begun("B", "plane", 7, seed), *pair, steps=10))[-1].mean()
        loss = np.mean([own[pair] for own in every.values()])
        assert the(plane, lr_A=pair[0], lr_B=pair[1]) == pytest.approx(loss, rel=1e-9)
    for seed, own in every.items():
        lr_a, lr_b = min(own, key=lambda pair: own[pair])
        assert the(rows, part="best", init="B", log2_n=7, seed=seed) == lr_b / lr_a


def test_seeds_are_unlike_and_the_same_again(rows: pd.DataFrame) -> None:
    some = rows[(rows["part"] == "exponent") & (rows["range"] == "small") & (rows["quantity"] == "f")]
    by_seed = [own["value"].to_numpy() for _, own in some.groupby("seed")]
    assert not np.isclose(by_seed[0], by_seed[1]).any()
    pd.testing.assert_frame_equal(rows, pd.DataFrame(survey.measured(SMOKE)))


def test_a_draw_is_the_same_at_every_width() -> None:
    first, second = (survey._begun(SMOKE, "A", "large", n, 0) for n in (40, 60))
    np.testing.assert_array_equal(first.z, second.z)
