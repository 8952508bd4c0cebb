"""subspace_seed: directions beyond chance are counted, q against v, and random subspaces share none."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from loralab.studies import subspaces
from tests.analysis.frames import claims, drawn, marks, module, verdicts
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


def test_what_is_drawn_is_less_chance_which_random_subspaces_share(frame: pd.DataFrame) -> None:
    with drawn("subspace_seed", frame) as figure:
        for row in range(2):
            lines, *sides = figure.axes[4 * row : 4 * row + 4]
            assert {np.asarray(ax.images[0].get_array()).shape for ax in sides} == {(4, 4)}
            assert not [label for label, *_ in marks(lines) if label == "random"]
    assert subspaces.above_chance(frame, "random", "q", "A")[1, 1].tolist() == pytest.approx([0] * 6, abs=1e-6)
    assert len(STUDY.summary(frame)) == 10 and "6 runs (0 diverged)" in STUDY.caption(frame)
