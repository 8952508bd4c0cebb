"""latency: figure and claims match the CSV; merged LoRA is near the plain backbone, or its claim does not hold."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from loralab.studies import results, timing
from loralab.studies.verdicts import CONTRADICTED, EQUIVALENT, HELD, UNKNOWN
from tests.analysis.frames import claims, drawn, module, verdicts

LATENCY = module("latency")
FEW, MANY = (1, 16), (16, 128)
TIMES: Mapping[str, Any] = {"merged": 1.002, "unmerged": 1.1, "houlsby": 1.31, "pfeiffer": 1.21, "prefix": 1.05}


def built(factors: Mapping[str, Any], noise: float = 0.01, many: float = 1.02) -> pd.DataFrame:
    """The full size: each arm's times are a multiple of the plain ones; `many`: the bottlenecks' at the most tokens."""
    rng = np.random.default_rng(0)
    frame: pd.DataFrame = LATENCY.wanted(False)
    factor = frame["arm"].map(lambda arm: factors.get(arm, 1.0))
    largest = (frame["batch"] == MANY[0]) & (frame["length"] == MANY[1])
    factor = factor.mask(largest & frame["arm"].isin(["houlsby", "pfeiffer"]), many)
    shared = 1 + frame["repeat"] / 50  # the machine slows down, equally for all arms
    frame["cpu"] = 1e-4 * frame["batch"] * frame["length"] * factor * shared
    frame["cpu"] *= np.exp(noise * rng.standard_normal(len(frame)))
    text = frame.assign(wall=2 * frame["cpu"], trained=7, commit="c" * 40, diff=None).to_csv(index=False)
    read = pd.read_csv(io.StringIO(text), dtype=dict.fromkeys(results.TEXTS, str))
    return read.sample(frac=1, random_state=0).reset_index(drop=True)


def test_what_is_built_in_is_claimed() -> None:
    frame = built(TIMES)
    assert verdicts("latency", frame) == [HELD] * 3
    merged, houlsby, pfeiffer = [claim.found for claim in claims("latency", frame)]
    assert merged.estimate == pytest.approx(1.002, abs=0.002) and merged.n == 60
    assert (houlsby.estimate, pfeiffer.estimate) == pytest.approx((1.31, 1.21), rel=0.01)
    assert houlsby.high - houlsby.low < 0.02, "pairs: what slows all arms alike is no noise"


@pytest.mark.parametrize(
    ("merged", "noise", "verdict"),
    [(1.05, 0.01, CONTRADICTED), (0.95, 0.01, CONTRADICTED), (0.99, 0.01, HELD), (1, 0.6, UNKNOWN)],
)
def test_merged_lora_is_near_in_both_directions_or_not(merged: float, noise: float, verdict: str) -> None:
    assert verdicts("latency", built({**TIMES, "merged": merged}, noise))[0] == verdict


def test_adapters_that_cost_less_than_the_paper_says_or_nothing_are_not_held() -> None:
    less = built({**TIMES, "houlsby": 1.1, "pfeiffer": 1.0})
    assert verdicts("latency", less) == [HELD, CONTRADICTED, EQUIVALENT]


def test_the_figure_has_each_arms_interval_in_each_cell_in_percent() -> None:
    frame = built(TIMES)
    with drawn("latency", frame) as figure:
        (left,) = figure.axes
        assert [text.get_text() for text in left.get_xticklabels()][:2] == ["1 x 16", "1 x 64"]
        assert len(left.containers) == len(LATENCY.NAMES)
        for arm, container in zip(LATENCY.NAMES, left.containers, strict=True):
            found: Any = container[0].get_ydata()
            expected = [100 * (LATENCY.slowdown(frame, arm, cell).estimate - 1) for cell in LATENCY.cells(frame)]
            np.testing.assert_allclose(found, expected)


def test_the_summary_and_the_caption_tell_pairs_and_noise() -> None:
    frame = built(TIMES)
    table = LATENCY.summary(frame)
    row = table[(table["arm"] == "Houlsby") & (table["batch"] == 1) & (table["length"] == 16)].iloc[0]
    assert row["ratio"] == pytest.approx(1.3, rel=0.01) and row["low"] < row["ratio"] < row["high"]
    assert len(table) == 6 * 6 and "means of 60 pairs" in LATENCY.caption(frame)
    assert LATENCY.caption(frame).endswith(", code ccccccc.") or "code ccccccc." in LATENCY.caption(frame)


def test_all_arms_share_the_frozen_weights_and_compute_what_they_say() -> None:
    pytest.importorskip("peft")
    models = LATENCY.arms(timing.backbone("tiny"))
    assert list(models) == list(LATENCY.ARMS)
    inputs = LATENCY.example(2, 8)
    with torch.inference_mode():
        logits = {arm: model(**inputs).logits for arm, model in models.items()}
    for arm in ("again", "merged", "unmerged", "houlsby", "pfeiffer"):  # updates are zero before training
        torch.testing.assert_close(logits[arm], logits["plain"], rtol=1e-5, atol=1e-5)
    assert not torch.equal(logits["prefix"], logits["plain"])
    own = {arm: {p.data_ptr() for p in model.parameters()} for arm, model in models.items()}
    changed = {arm: len(own["plain"] - own[arm]) for arm in own}
    assert changed == dict.fromkeys(own, 0) | {"merged": 4 + 2}, "q and v of two layers, and the task's head"
    trained = {arm: LATENCY.trained(model) for arm, model in models.items()}
    assert trained["merged"] == trained["plain"] == 0 < trained["unmerged"] < trained["pfeiffer"] < trained["houlsby"]
