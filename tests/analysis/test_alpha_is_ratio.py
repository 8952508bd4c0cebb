"""alpha_is_ratio: runs that should coincide share a line, and what parts them is measured from the run of s = 1."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from loralab.studies import committed
from tests.analysis.frames import claims, distinct, drawn, made, module, verdicts

STUDY = module("alpha_is_ratio")


def law(run: dict[str, Any]) -> dict[str, Any]:
    """Losses as the law has them: of the products alone, with a difference in s where something breaks it."""
    s, rate = run["lora.alpha"] / run["lora.rank"], run["optim.lr"]
    one = s * run["lora.ratio"] if run["lora.init"] == "A" else s * rate / 4e-4 + run["lora.ratio"] * rate / 1.6e-3
    broken = run["optim.weight_decay"] > 0 or run["optim.eps"] > 1e-6 or run["optim.clip"] == 1
    steps = np.arange(50)
    losses = 2 - 0.01 * steps - one / 1000 + 1e-7 * s + broken * 1e-4 * np.log2(s) * steps
    return distinct(run) | {"losses": " ".join(f"{loss:.9g}" for loss in losses), "validation/loss": losses[-1]}


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return made("alpha_is_ratio", law)


def test_the_runs_of_a_line_have_one_product_and_differ_in_s(frame: pd.DataFrame) -> None:
    found = STUDY.lines(frame)
    assert [len(line) for line in found[STUDY.PLAIN]] == [2, 3, 4, 3, 2]
    assert len(STUDY.plane(frame)) == 16
    for kind in (STUDY.DECAY, STUDY.EPS, STUDY.CLIP, STUDY.B_LINE, STUDY.MIRROR):
        (line,) = found[kind]
        assert line["s"].tolist() == [0.25, 1, 4, 16]
        assert line["optim.lr"].nunique() == (4 if kind == STUDY.MIRROR else 1)
        assert (line["lora.ratio"] * line["optim.lr"]).round(9).nunique() == (1 if kind == STUDY.MIRROR else 4)


def test_differences_are_from_the_run_of_s_1(frame: pd.DataFrame) -> None:
    (line,) = STUDY.lines(frame)[STUDY.CLIP]
    apart = STUDY.differences(line)
    assert apart.shape == (3, 50)
    assert apart[:, -1] == pytest.approx([1e-4 * 49 * 2, 1e-4 * 49 * 2, 1e-4 * 49 * 4], rel=1e-2)
    assert STUDY.largest([line]) == pytest.approx(np.log10(apart[:, -1]))


def test_a_run_that_diverged_leaves_no_number(frame: pd.DataFrame) -> None:
    (line,) = STUDY.lines(frame)[STUDY.CLIP]
    short = line.assign(losses=[" ".join(line["losses"].iloc[0].split()[:20]), *line["losses"].iloc[1:]])
    assert np.isnan(STUDY.differences(short)).all(axis=1).tolist() == [True, False, False]


def test_equal_runs_are_called_equal_and_broken_ones_apart(frame: pd.DataFrame) -> None:
    assert verdicts("alpha_is_ratio", frame) == ["held"] * 6
    assert [claim.exact for claim in claims("alpha_is_ratio", frame)] == [True] * 2 + [False] * 4


def test_runs_that_part_contradict_the_claim_that_they_are_equal() -> None:
    def apart(run: dict[str, Any]) -> dict[str, Any]:
        losses = 2 - 0.01 * np.arange(50) + run["lora.ratio"] / 100
        return distinct(run) | {"losses": " ".join(f"{loss:.9g}" for loss in losses)}

    assert verdicts("alpha_is_ratio", made("alpha_is_ratio", apart))[:2] == ["contradicted in size"] * 2


def test_the_plane_shows_each_cells_loss(frame: pd.DataFrame) -> None:
    with drawn("alpha_is_ratio", frame) as figure:
        plane, curves, apart = figure.axes
        assert len(plane.texts) == 16
        by_place = {tuple(text.get_position()): text.get_text() for text in plane.texts}
        assert by_place[0, 3] == by_place[3, 0] == by_place[1, 2] == by_place[2, 1]  # the line s λ = 4
        assert len(set(by_place.values())) == 7
        assert len([line for line in curves.lines if np.size(line.get_xdata())]) == 14
        assert {line.get_label() for line in apart.lines} >= set(STUDY.EXPECTED)
        margins = {question.margin for question in committed.questions("alpha_is_ratio", frame)}
        (dotted,) = (line for line in apart.lines if line.get_linestyle() == ":")
        assert margins == set(np.asarray(dotted.get_ydata()).tolist())
