"""switching: figure and claims match the CSV; a way to switch that is not cheaper does not hold."""

import io
from typing import Any

import numpy as np
import pandas as pd
import pytest

from loralab.studies import results
from loralab.studies.verdicts import CONTRADICTED, HELD
from tests.analysis.frames import claims, drawn, module, verdicts

SWITCHING = module("switching")
MS = {"memory": 1.0, "disk": 3.0, "copy": 10.0, "load": 20.0, "bank": 50.0, "merged": 100.0, "switched": 110.0}


def built(ms: dict[str, float] = MS) -> pd.DataFrame:
    """The full size, with these ms for each way, multiplied by the rows in a mixed batch; drift grows with count."""
    rng = np.random.default_rng(0)
    frame: pd.DataFrame = SWITCHING.wanted(False)
    is_drift = frame["part"] == "drift"
    times: Any = frame["way"].map(ms) * 1e-3 * np.where(frame["part"] == "mixed", frame["count"].astype(float), 1.0)
    frame["cpu"] = times * np.exp(0.02 * rng.standard_normal(len(frame))) * (1 + frame["repeat"] / 50)
    frame["wall"] = 2 * frame["cpu"]
    frame["bytes"] = np.where(frame["part"] == "switch", frame["rank"].astype(float).fillna(9e4) * 1e3, np.nan)
    frame["off"] = np.where(is_drift, frame["dtype"].map({"float32": 1e-7, "bfloat16": 4e-3}) * frame["count"], np.nan)
    text = frame.assign(commit="c" * 40, diff=None).to_csv(index=False)
    read = pd.read_csv(io.StringIO(text), dtype=dict.fromkeys(results.TEXTS, str))
    return read.sample(frac=1, random_state=0).reset_index(drop=True)


def test_what_is_built_in_is_claimed() -> None:
    found = claims("switching", built())
    assert verdicts("switching", built()) == [HELD] * 6
    assert [claim.found.estimate for claim in found] == pytest.approx([10, 20 / 3, 2, 2, 2, 2], rel=0.02)
    assert {claim.found.n for claim in found} == {50}


def test_a_way_that_takes_longer_is_not_held() -> None:
    slower = built({**MS, "disk": 30.0, "bank": 120.0})
    assert verdicts("switching", slower) == [HELD, *[CONTRADICTED] * 5]


def test_the_figure_has_medians_by_rank_drift_by_switches_and_ratios_by_rows() -> None:
    frame = built()
    with drawn("switching", frame) as figure:
        costs, drifts, mixtures = figure.axes
        assert len(costs.lines) == 4 + 2
        line: Any = costs.lines[0].get_data()
        own: Any = frame[(frame["way"] == "memory") & (frame["targets"] == "q,v")].groupby("rank")["cpu"].median()
        np.testing.assert_allclose(line, np.array([own.index, 1e3 * own]))
        whole: Any = costs.lines[4].get_ydata()
        assert whole[0] == pytest.approx(1e3 * frame.loc[frame["way"] == "copy", "cpu"].median())
        fp32, bf16 = (np.array(each.get_data(), dtype=float) for each in drifts.lines)
        np.testing.assert_allclose(fp32, [[2.0, 10.0, 100.0, 1000.0], [2e-7, 1e-6, 1e-5, 1e-4]])
        np.testing.assert_allclose(bf16[1], 4e-3 * bf16[0])
        for way, container in zip(SWITCHING.PASSES, mixtures.containers, strict=True):
            found: Any = container[0].get_ydata()
            expected: Any = [SWITCHING.faster(frame, way, count).estimate for count in (1, 2, 4, 8)]
            np.testing.assert_allclose(found, expected)


def test_the_summary_has_every_way_with_its_bytes() -> None:
    table = SWITCHING.summary(built()).set_index("what")
    assert table.loc["whole model, copied", "bytes"] == "90000000"
    assert table.loc["LoRA, in place, q,v, r = 8", "bytes"] == "8000"
    times: Any = table.loc["eight merged models over mixed, 4 rows each"]
    assert times["CPU"] == times["clock"] and float(times["CPU"][:-1]) == pytest.approx(2, rel=0.02)
    assert len(table) == 2 * 2 * 5 + 2 + 2 * 4 + 2 * 4 and "code ccccccc." in SWITCHING.caption(built())
