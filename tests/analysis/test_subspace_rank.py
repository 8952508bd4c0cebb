"""subspace_rank: pairs have different seeds, and a built-in phi is found, claimed and drawn."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.analysis.frames import claims, drawn, marks, module, verdicts
from tests.analysis.overlaps import D, paired

STUDY = module("subspace_rank")
SIDES = ("A", "A - A_0", "left")


def kinds(run: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    return {"other": SIDES, "same": SIDES, "untrained": ("A",)} if run["lora.rank"] == 8 else {}


def phi(run: dict[str, Any], kind: str, which: str, side: str, i: int, j: int) -> float:
    """The first directions share .8, varied by seed; each further direction shares .1; at one seed, phi is 1."""
    if kind != "other":
        return float(kind == "same")
    first = 0.8 + 0.01 * float(run["seed"] - 302.5)
    return (first + 0.1 * (min(i, j) - 1)) / min(i, j)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return paired("subspace_rank", kinds, lambda run: (8, 64), phi).sample(frac=1, random_state=0)


def test_pairs_are_of_a_small_and_a_large_rank_and_of_two_seeds_but_for_the_one_that_is_to_fake() -> None:
    seeds, ranks = (300, 301, 302), (8, 64)
    runs = pd.DataFrame([(f"{r}@{s}", r, s) for s in seeds for r in ranks], columns=["hash", "lora.rank", "seed"])
    found = STUDY.pairs(runs)
    assert {(p.first, p.other) for p in found if p.kind == "same"} == {(f"8@{s}", f"64@{s}") for s in seeds}
    ring = {("8@300", "64@301"), ("8@301", "64@302"), ("8@302", "64@300")}
    for kind in ("other", "untrained"):
        assert {(p.first, p.other) for p in found if p.kind == kind} == ring
    assert len(found) == 9


def test_a_shared_first_direction_is_found_and_the_rest_is_not(frame: pd.DataFrame) -> None:
    found = claims("subspace_rank", frame)
    assert [claim.exact for claim in found] == [False] * 4 + [True] * 2 and {claim.found.n for claim in found} == {6}
    assert [claim.found.estimate for claim in found] == pytest.approx([0.8] * 4 + [0.1] * 2)
    assert verdicts("subspace_rank", frame) == ["held"] * 6


def test_what_is_shared_as_at_one_seed_does_not_hold_that_the_rest_is_not(frame: pd.DataFrame) -> None:
    """If pairs of one seed were used in place of pairs of two, all would be shared."""
    faked = frame[frame["kind"] != "other"].assign(kind=lambda rows: rows["kind"].replace("same", "other"))
    assert verdicts("subspace_rank", faked) == ["held"] * 4 + ["contradicted in size"] * 2


def test_the_figure_has_a_map_a_row_with_the_lines_first_and_all_is_less_chance(frame: pd.DataFrame) -> None:
    with drawn("subspace_rank", frame) as figure:
        for row in range(2):
            lines, *sides = figure.axes[4 * row : 4 * row + 4]
            for ax in sides:
                cells = np.asarray(ax.images[0].get_array())
                assert cells.shape == (4, 4), "every other of the seven powers of two"
                assert cells[0, 0] == pytest.approx(0.8 - 1 / D)
            levels = {label: values[0] for label, _, values, _ in marks(lines)}
            assert levels["$A$, same seed in both"] == pytest.approx(1 - 1 / D)
            assert levels["$A_0$, untrained"] == pytest.approx(-1 / D) and levels["$A$"] == pytest.approx(0.8 - 1 / D)


def test_the_caption_names_both_ranks(frame: pd.DataFrame) -> None:
    text = STUDY.caption(frame)
    assert "directions of r = 8 and the first j of r = 64" in text and "12 runs (0 diverged)" in text
    assert len(STUDY.summary(frame)) == 14
