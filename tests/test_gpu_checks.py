"""benchmarks/gpu.py: it refuses a machine without a GPU, and its runs are ones that loralab takes."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from loralab.config.schema import from_hydra
from tests.small_runs import SMALL, composer

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def gpu() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_checks", ROOT / "benchmarks" / "gpu.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_without_a_gpu_it_ends_in_one_line(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    assert gpu.main() == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert said.err.startswith("error: benchmarks/gpu.py needs a CUDA device, and this machine has none; ")


def test_every_arm_is_a_run_of_its_own(gpu: ModuleType, tmp_path: Path) -> None:
    runs = [
        from_hydra(composer().settings([f"store={tmp_path}", *gpu.RUN, *arm.settings])) for arm in gpu.ARMS.values()
    ]
    assert len({repr(asked) for asked in runs}) == len(runs) == 13


@pytest.mark.slow
def test_an_arm_is_timed_and_its_memory_predicted(gpu: ModuleType, tmp_path: Path) -> None:
    asked = [*SMALL, *gpu.RUN, "train.device=cpu", "task.train_rows=64"]
    found = gpu.one(str(tmp_path), *asked)
    assert found["ms_per_step"] > 0 and found["predicted_mb"] > 0 and found["loss"] > 0
    assert found["peak_mb"] == 0 and found["ratio"] is None, "a CPU's peak is the whole process's"
