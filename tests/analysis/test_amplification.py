"""amplification: norms of LoRA's Table 7 reproduce the table, and each norm matches its name."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from loralab.inspect import spectra
from loralab.inspect.updates import Update
from loralab.studies.stats import ratio_interval
from tests.analysis.frames import claims, drawn, made, marks, module, verdicts
from tests.analysis.overlaps import scores

STUDY = module("amplification")
RANKS, SEEDS = (1, 4, 8, 16, 64), range(300, 306)
PAPER = {4: (6.91, 0.32, 21.67, 0.02), 64: (3.57, 1.90, 37.71, 0.33)}  # LoRA's Table 7, in the order of NORMS


def rows(run: dict[str, Any]) -> list[dict[str, Any]]:
    """The paper's norms at its ranks, 1 at others; layers and seeds differ from them by factors."""
    found = [scores(run)]
    for which in ("q", "v"):
        for layer, factor in (("0", 0.5), ("1", 2.0)):
            norms = np.array(PAPER.get(run["lora.rank"], (1, 1, 1, 1))) * factor
            norms *= np.array([1 + 0.02 * (run["seed"] % 3), 1 + 0.01 * (run["seed"] % 2), 1, 1])
            found.append({"kind": "layer", "map": which, "layer": layer} | dict(zip(STUDY.NORMS, norms, strict=True)))
    return found


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return made("amplification", rows).sample(frac=1, random_state=0)


def test_the_norms_are_geometric_means_over_the_layers(frame: pd.DataFrame) -> None:
    found = STUDY.norms(frame, 4, "q")
    assert list(found.index) == list(SEEDS)
    np.testing.assert_allclose(found.loc[300], PAPER[4])
    np.testing.assert_allclose(found["delta W"], [6.91 * (1 + 0.02 * (seed % 3)) for seed in SEEDS])


def test_the_papers_own_table_holds_what_the_paper_says_of_it(frame: pd.DataFrame) -> None:
    few, many = PAPER[4], PAPER[64]
    expected = [few[0] / few[1] / (many[0] / many[1]), few[1] / few[3], few[2] / few[1]]
    found = claims("amplification", frame)
    assert [claim.found.estimate for claim in found] == pytest.approx(expected, rel=0.01)
    assert [claim.number for claim in found] == pytest.approx(expected, rel=0.1)
    assert verdicts("amplification", frame) == ["held"] * 3


def test_an_update_along_ws_top_directions_that_amplifies_little_does_not_hold(frame: pd.DataFrame) -> None:
    small = frame["lora.rank"] == 4
    turned = frame.assign(**{"in delta W": frame["in delta W"].where(~small, frame["in W"] * 0.9 + frame["seed"] % 2)})
    turned["at random"] = turned["in delta W"] * 2
    assert verdicts("amplification", turned) == ["contradicted in size"] * 3


def test_each_norm_is_what_its_name_says() -> None:
    rng = np.random.default_rng(0)
    W = rng.standard_normal((12, 10))
    A, B = (rng.standard_normal(shape).astype(np.float32) for shape in ((3, 10), (12, 3)))
    update = Update(A, B, scaling=0.5)
    U, S, V = update.svd()
    found = STUDY.measured(update, W, spectra.left_basis(W), spectra.right_basis(W), rng)
    assert found["delta W"] == pytest.approx(np.linalg.norm(0.5 * update.B @ update.A))
    assert found["delta W"] / found["in delta W"] == pytest.approx(spectra.amplification(U, S, V, W))
    assert found["in W"] == pytest.approx(np.linalg.norm(np.linalg.svd(W)[1][:3]))
    assert found["at random"] == pytest.approx(3 * np.linalg.norm(W) / np.sqrt(12 * 10), rel=0.25)
    assert found["in delta W"] < found["in W"]


def test_the_figure_has_the_amplification_beside_that_of_random_directions_and_then_the_norms(
    frame: pd.DataFrame,
) -> None:
    with drawn("amplification", frame) as figure:
        *panels, last = figure.axes
        for which, ax in zip(("q", "v"), panels, strict=True):
            of = STUDY.norms(frame, 4, which)
            for (_, ranks, middle, ends), name in zip(marks(ax), ("in delta W", "at random"), strict=True):
                expected = ratio_interval(of["delta W"], of[name])
                assert ranks == RANKS and middle[1] == pytest.approx(expected.estimate)
                assert ends[1] == pytest.approx([expected.low, expected.high])
        for name, (_, ranks, middle, _) in zip(STUDY.NORMS, marks(last), strict=True):
            assert middle == pytest.approx([STUDY.size(STUDY.norms(frame, rank, "q")[name]).estimate for rank in RANKS])
            assert ranks == RANKS
    assert len(STUDY.summary(frame)) == 2 * len(RANKS) and "30 runs (0 diverged)" in STUDY.caption(frame)
