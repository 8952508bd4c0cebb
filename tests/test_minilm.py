"""The real MiniLM on Rotten Tomatoes, as in `make demo`; and a RoBERTa checkpoint from disk."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loralab.device import cpu_has_bf16
from tests.families import FAMILIES, save_checkpoint

ROOT = Path(__file__).resolve().parents[1]


def train(store: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    precision = "bf16" if cpu_has_bf16() else "fp32"  # emulated bf16 takes three times as long
    command = [sys.executable, str(ROOT / "train.py"), "tracker=none", f"train.precision={precision}"]
    command += [f"store={store}", *overrides]
    return subprocess.run(command, capture_output=True, text=True, timeout=1200)


def record(store: Path, pattern: str) -> dict[str, Any]:
    (path,) = store.glob(f"runs/{pattern}/record.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.mark.slow
def test_the_demo_reaches_its_bar_and_the_head_alone_does_not(tmp_path: Path) -> None:
    assert train(tmp_path).returncode == 0
    assert train(tmp_path, "method=head", "train.epochs=1").returncode == 0
    demo = record(tmp_path, "*-lora-*")["metrics"]["test"]["last"]["accuracy"]
    head = record(tmp_path, "*-head-*")["metrics"]["test"]["last"]["accuracy"]
    assert demo >= 0.78
    assert 0.5 < head < demo - 0.03


@pytest.mark.slow
def test_a_roberta_checkpoint_trains_from_disk_and_without_it_the_error_is_one_line(tmp_path: Path) -> None:
    checkpoint = save_checkpoint(FAMILIES["roberta"]().base_model, tmp_path / "roberta")
    small = ("train.steps=4", "train.epochs=null", "task.train_rows=64", "train.max_length=16")
    done = train(tmp_path, "model=roberta", "lora.ratio=16", f"model.path={checkpoint}", *small)
    assert done.returncode == 0, done.stderr
    found = record(tmp_path, "roberta-*")
    assert {group["name"] for group in found["groups"]} >= {"A", "B", "head"}

    before = sorted(tmp_path.glob("runs/*"))
    refused = train(tmp_path, "model=roberta", "lora.ratio=16", *small)
    if refused.returncode == 0:
        pytest.skip("the hub or its cache has roberta-base")
    assert refused.returncode == 2
    assert sorted(tmp_path.glob("runs/*")) == before, "refused before anything was made"
    (line,) = refused.stderr.splitlines()
    assert line.startswith("error: model=roberta: FacebookAI/roberta-base")
    assert "model.path=DIR" in line
