"""subspace_seed: directions beyond chance are counted, q against v, and random subspaces share none."""

from typing import Any

import pandas as pd
import pytest

from tests.analysis.frames import claims, drawn, module, verdicts
from tests.analysis.overlaps import D, paired

STUDY = module("subspace_seed")
SIDES = ("A", "A - A_0", "left")
MORE = {("other", "q"): 9, ("other", "v"): 4}  # directions beyond chance, varied by seed


def kinds(run: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    return {"other": SIDES, "untrained": ("A",), "random": ("A",)}


def phi(run: dict[str, Any], kind: str, which: str, side: str, i: int, j: int) -> float:
    more = MORE.get((kind, which), 0)
    return max(i, j) / D + (more + (run["seed"] % 2 if more else 0)) / 64


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return paired("subspace_seed", kinds, lambda run: (64, 64), phi).sample(frac=1, random_state=0)


@pytest.mark.parametrize("kind", ["other", "random", "untrained"])
@pytest.mark.parametrize("which", ["q", "v"])
def test_directions_beyond_chance_are_those_that_were_built_in(frame: pd.DataFrame, kind: str, which: str) -> None:
    found = STUDY.excess(frame, kind, which, "A")
    more = MORE.get((kind, which), 0)
    expected = [more + (seed % 2 if more else 0) for seed in range(300, 306)]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


def test_more_for_q_holds_and_more_for_v_does_not(frame: pd.DataFrame) -> None:
    spread = frame.assign(phi=frame["phi"] + 0.1 / 64 * (frame["seed"] % 3) * (frame["map"] == "q"))
    found = [claim.found for claim in claims("subspace_seed", spread)]
    assert [each.n for each in found] == [6, 6] and found[0].estimate == pytest.approx(5.1)
    assert verdicts("subspace_seed", spread) == ["held"] * 2
    swapped = spread.assign(map=spread["map"].map({"q": "v", "v": "q"}))
    assert verdicts("subspace_seed", swapped) == ["contradicted in size"] * 2


def test_the_random_control_stands_beside_the_trained_ones(frame: pd.DataFrame) -> None:
    with drawn("subspace_seed", frame) as figure:
        for row in range(2):
            *trained, control = (figure.axes[5 * row + column] for column in range(4))
            assert control.get_title().endswith("random")
            ends: list[Any] = [each.images[0].get_array() for each in (*trained, control)]
            assert {each.shape for each in ends} == {(7, 7)}
            assert ends[-1][0, 0] == pytest.approx(1 / D, abs=1e-6) and ends[0][0, 0] > 0.05
    assert len(STUDY.summary(frame)) == 10 and "6 runs (0 diverged)" in STUDY.caption(frame)
