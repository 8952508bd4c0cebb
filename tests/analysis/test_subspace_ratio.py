"""subspace_ratio: noisy views of one subspace count as the same, and different subspaces as different."""

from typing import Any

import pandas as pd
import pytest

from tests.analysis.frames import claims, drawn, marks, module, verdicts
from tests.analysis.overlaps import D, paired

STUDY = module("subspace_ratio")
SIDES = ("A", "A - A_0", "left")
CLEAR = {1: 0.9, 4: 0.7, 16: 0.3}  # |cosine| of what a run learns with the direction that all runs share


def kinds(run: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    ratio = run["lora.ratio"]
    pairs = [STUDY.within(ratio)]
    if ratio == 1:
        pairs += [kind(other) for other in (4, 16) for kind in (STUDY.between, STUDY.faked)]
    else:
        pairs.append(STUDY.between(ratio))
    return dict.fromkeys(pairs, SIDES)


def phi(run: dict[str, Any], kind: str, which: str, side: str, i: int, j: int) -> float:
    """phi of two views is the product of their squared cosines, for any λ."""
    if kind.endswith("one seed"):
        return 1.0
    ratios = [int(text) for text in kind.removeprefix("λ = ").split(" and ")]
    one, other = (CLEAR[ratio] for ratio in (ratios[0], ratios[-1]))
    return one**2 * other**2 * (1 + 0.01 * float(run["seed"] - 302.5))


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    found = paired("subspace_ratio", kinds, lambda run: (8, 8), phi)
    return found[(found["kind"] == "run") | (found["i"] == found["j"])].sample(frac=1, random_state=0)


def scaled(frame: pd.DataFrame, by: float) -> pd.DataFrame:
    """The frame with phi between λ = 1 and 16 multiplied by a factor that varies a little by seed."""
    hit = frame["kind"] == STUDY.between(16)
    return frame.assign(phi=frame["phi"].where(~hit, frame["phi"] * (by + 0.01 * (frame["seed"] % 3))))


@pytest.mark.parametrize("ratio", [4, 16])
@pytest.mark.parametrize("side", SIDES)
def test_one_subspace_seen_more_or_less_noisily_is_one(frame: pd.DataFrame, ratio: float, side: str) -> None:
    found = STUDY.relative(frame, ratio, ("q", "v"), side, 8)
    assert (found.estimate, found.n) == (pytest.approx(1, abs=1e-9), 6)


def test_as_much_between_as_within_holds_and_less_or_more_does_not(frame: pd.DataFrame) -> None:
    fewer = scaled(frame, 0.5)
    estimates = [claim.found.estimate for claim in claims("subspace_ratio", fewer)]
    assert estimates == pytest.approx([0.51, 0.51], abs=0.001)
    for by, verdict in ((0.5, "contradicted in size"), (0.99, "held"), (2, "contradicted in size")):
        assert verdicts("subspace_ratio", scaled(frame, by)) == [verdict] * 2


def test_both_orders_of_a_pair_count_alike(frame: pd.DataFrame) -> None:
    hit = (frame["kind"] == STUDY.between(16)) & (frame["lora.ratio"] == 1)
    found = STUDY.relative(frame.assign(phi=frame["phi"].where(~hit, 0.0)), 16, ("q",), "left", 8)
    assert found.estimate == pytest.approx(0.5)


def test_what_shares_its_seed_is_in_no_interval_of_lambda(frame: pd.DataFrame) -> None:
    gone = frame[~frame["kind"].str.endswith("one seed")]
    assert claims("subspace_ratio", gone) == claims("subspace_ratio", frame)


def test_pairs_are_of_two_seeds_but_for_those_that_are_to_fake() -> None:
    cells = [(f"{r}@{s}", r, s) for s in (300, 301, 302) for r in (1, 4, 16)]
    for pair in STUDY.pairs(pd.DataFrame(cells, columns=["hash", "lora.ratio", "seed"])):
        (one, first), (other, second) = (name.split("@") for name in (pair.first, pair.other))
        assert (first == second) is pair.kind.endswith("one seed")
        expected = STUDY.within if one == other else STUDY.faked if first == second else STUDY.between
        assert pair.kind == expected(max(int(one), int(other))) and (one == other or "1" in (one, other))


def test_the_first_panel_is_of_their_ratio_and_the_lines_are_of_each_lambda(frame: pd.DataFrame) -> None:
    chance = 8 / D
    with drawn("subspace_ratio", scaled(frame, 0.5)) as figure:
        for row in range(2):
            first, *sides = figure.axes[3 * row : 3 * row + 3]
            assert {round(values[-1], 2) for _, _, values, _ in marks(first)} == {0.51}
            for ax in sides:
                levels = {label: values[-1] + chance for label, _, values, _ in marks(ax)}
                assert levels["both λ = 1"] == pytest.approx(0.9**4) and levels["both λ = 16"] == pytest.approx(0.3**4)
                assert levels["one run at each λ"] == pytest.approx(0.51 * 0.9**2 * 0.3**2, rel=0.01)
    assert len(STUDY.summary(frame)) == 2 * 3 * 2 * 2
