"""subspace_weight: the part in W's top directions beyond chance is found, and grows with the rank."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from loralab.studies.stats import mean_interval
from tests.analysis.frames import claims, drawn, module, verdicts
from tests.analysis.overlaps import D, paired

STUDY = module("subspace_weight")
RANKS, TOPS, SEEDS = (1, 4, 8, 16, 64), [1, 2, 4, 8, 16, 32, 64, 128], range(300, 306)


def more(rank: float, seed: int) -> float:
    """phi beyond chance: .01 for each doubling of the rank, varied by seed."""
    return 0.02 + 0.01 * float(np.log2(rank)) + 0.001 * (seed % 3) * float(np.log2(2 * rank))


def phi(run: dict[str, Any], kind: str, which: str, side: str, i: int, j: int) -> float:
    """phi is above chance only on the right side and for all r directions together."""
    there = side == "right" and j == run["lora.rank"]
    return max(i, j) / D + (more(j, run["seed"]) if there else 0)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    found = paired(
        "subspace_weight", lambda run: {"weight": ("right", "left")}, lambda run: (128, run["lora.rank"]), phi
    )
    return found.sample(frac=1, random_state=0)


@pytest.mark.parametrize("rank", RANKS)
def test_what_lies_in_w_beyond_chance_is_what_was_built_in(frame: pd.DataFrame, rank: int) -> None:
    right, left = (STUDY.above_chance(frame, rank, "q", side) for side in STUDY.SIDES)
    assert list(right) == TOPS
    for i in TOPS:
        assert right[i].tolist() == pytest.approx([more(rank, seed) for seed in SEEDS])
    np.testing.assert_allclose(left, 0, atol=1e-9)


def test_more_than_random_and_more_with_the_rank_hold_where_they_are_large(frame: pd.DataFrame) -> None:
    for factor, verdict in ((3, "held"), (-3, "contradicted in size"), (0.5, "equivalent")):
        turned = frame.assign(phi=frame["chance"] + factor * (frame["phi"] - frame["chance"]))
        estimates = [claim.found.estimate for claim in claims("subspace_weight", turned)]
        assert estimates == pytest.approx([factor * 0.054] * 2 + [factor * 0.044] * 2)
        assert verdicts("subspace_weight", turned) == [verdict] * 4


def test_the_lines_are_of_the_ranks_with_their_intervals(frame: pd.DataFrame) -> None:
    with drawn("subspace_weight", frame) as figure:
        panels: list[Any] = figure.axes
        assert [ax.get_title("left") for ax in panels] == [
            f"{w}: {s} singular vectors" for w in "qv" for s in STUDY.SIDES
        ]
        for ax in (panels[0], panels[2]):
            for rank, (point, _, (segments,)) in zip(RANKS, ax.containers, strict=True):
                expected = mean_interval([more(rank, seed) for seed in SEEDS])
                assert point.get_xdata().tolist() == TOPS
                np.testing.assert_allclose(point.get_ydata(), expected.estimate)
                np.testing.assert_allclose(segments.get_segments()[3][:, 1], [expected.low, expected.high])
    assert len(STUDY.summary(frame)) == 2 * 2 * len(RANKS) and "30 runs (0 diverged)" in STUDY.caption(frame)
