"""memory: the formula holds for full fine-tuning and LoRA; figure and claims match the CSV."""

import io
import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest

from loralab.studies import results
from loralab.studies.verdicts import CONTRADICTED, HELD
from tests.analysis.frames import claims, drawn, module, verdicts

MEMORY = module("memory")


def built(above: Any = None) -> pd.DataFrame:
    """The full size: 90 MB of weights, plus 270 MB (full) or 2 MB (LoRA), plus 200 MB for the batch."""
    frame: pd.DataFrame = MEMORY.wanted(False)
    is_full = frame["method"] == "full"
    rank = frame["rank"].fillna(0)
    activations = np.where(frame["batch"] > 1, 200e6, 1e6)
    noise = 1 + 0.001 * frame["repeat"]
    frame["device"], frame["weights"], frame["trainable"] = "cpu", 90e6, np.where(is_full, 22e6, 9e3 * rank)
    frame["above"] = (np.where(is_full, 270e6, 2e6) + activations) * noise
    frame["predicted"] = np.where(is_full, 270e6, 1.5e5 * rank)
    frame["checkpoint"] = np.where(is_full, 90e6, 36e3 * rank)
    text = frame.assign(commit="c" * 40, diff=None).to_csv(index=False)
    read = pd.read_csv(io.StringIO(text), dtype=dict.fromkeys(results.TEXTS, str))
    return read.sample(frac=1, random_state=0).reset_index(drop=True)


def test_weights_decide_for_a_short_text_and_activations_for_a_batch() -> None:
    frame = built()
    assert verdicts("memory", frame) == [HELD, CONTRADICTED, CONTRADICTED]
    found = [claim.found.estimate for claim in claims("memory", frame)]
    assert found == pytest.approx([361 / 93, 560 / 292, 90e6 / 144e3], rel=0.01)


def test_bars_are_the_weights_and_what_is_above_them_and_lines_are_the_formulas() -> None:
    frame = built()
    with drawn("memory", frame) as figure:
        axes: Any = figure.axes
        short, batch, disk = axes
        lengths = [bar.get_width() for bar in short.patches]
        assert lengths == pytest.approx([90] * 5 + [271 * 1.001] + [3 * 1.001] * 4)
        segments: Any = short.collections[0]
        lines = [float(segment[0][0]) for segment in segments.get_segments()]
        assert lines == pytest.approx([360] + [90 + 0.15 * rank for rank in (1, 4, 16, 64)])
        assert batch.patches[6].get_width() == pytest.approx(202 * 1.001)
        assert [bar.get_width() for bar in disk.patches] == pytest.approx([90, 0.036, 0.144, 0.576, 2.304])
        names = [text.get_text() for text in short.get_yticklabels()]
        assert names == ["full", *(f"LoRA, r = {rank}" for rank in (1, 4, 16, 64))]
        assert [text.get_text() for text in short.texts] == [f"{(90 + 3.003) / (90 + 271.271):.0%} of full"] * 4
        assert [text.get_text() for text in disk.texts] == [
            f"{part} of full" for part in ("1/2,500", "1/625", "1/156", "1/39")
        ]


def test_the_summary_says_what_the_formula_leaves_out() -> None:
    table = MEMORY.summary(built())
    row = table[(table["method"] == "full") & (table["batch"] == 32)].iloc[0]
    assert row["not predicted"] == pytest.approx(row["above"] - 270, abs=0.01) and row["not predicted"] > 200
    assert len(table) == 10 and "code ccccccc." in MEMORY.caption(built())


@pytest.mark.slow
def test_in_a_fresh_process_full_fine_tuning_of_minilm_takes_what_the_formula_says() -> None:
    """Gradients and two moments of 22.7M parameters; LoRA's are a few hundred kilobytes."""

    def row(method: str, rank: int | None) -> dict[str, Any]:
        asked = {"model": "minilm", "method": method, "rank": rank, "batch": 1, "length": 16}
        command = [sys.executable, str(MEMORY.__file__), "--row", json.dumps(asked)]
        done = subprocess.run(command, env=os.environ | MEMORY.ENVIRONMENT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    full, lora = row("full", None), row("lora", 4)
    assert full["predicted"] == 12 * full["trainable"] == 3 * full["weights"]
    assert full["above"] == pytest.approx(full["predicted"], rel=0.05)
    head = 385 * 2
    A_and_B = 2 * 6 * 2 * 4 * 384
    assert lora["trainable"] == A_and_B + head and lora["predicted"] == 16 * A_and_B + 12 * head
    assert lora["predicted"] < lora["above"] < 0.1 * full["above"]
    assert full["checkpoint"] > full["weights"] and 4 * lora["trainable"] < lora["checkpoint"] < 5 * lora["trainable"]
