"""Packed sweeps of real processes: killed ones end as their runs do alone, and studies select the same."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from loralab.runs.plan import plan
from loralab.runs.run import run
from tests.runs.test_pack import FP32, assert_alike, quiet
from tests.small_runs import config
from tests.small_studies import NAME, write
from tests.test_sweep import finish, records, start, trained, workers

STEPS = 60
SETTINGS = (*FP32[:2], FP32[3], f"train.steps={STEPS}", "train.eval_every=30", "train.checkpoint_seconds=0.1")
DIVERGES: dict[str, Any] = {"optim.lr": 1e4, "optim.clip": "null"}
PAUSES: dict[str, Any] = {"train.pause_at": 40}
# 16 runs that differ in all that those of a pack may; one diverges and one is paused.
ARMS: list[dict[str, Any]] = [
    {
        "method": "lora" if i % 5 == 0 else "lora_plus", "lora.ratio": (1, 4, 16, 0.5)[i % 4],
        "lora.rank": (2, 4, 8)[i % 3], "lora.alpha": (4, 8, 16)[i % 3], "lora.init": "AB"[i % 2],
        "lora.init_dist": ("kaiming", "gaussian")[i % 2],
        "optim.lr": (5e-4, 1e-3)[i % 2], "optim.schedule": ("linear", "cosine", "constant")[i % 3],
        "optim.clip": (1, "null")[i % 2], "optim.weight_decay": (0, 0.1)[i % 2], "init_seed": i, "data_seed": i // 2,
        **(DIVERGES if i == 14 else PAUSES if i == 15 else {}),
    }
    for i in range(16)
]  # fmt: skip


@pytest.mark.slow
def test_a_killed_packed_sweep_has_the_runs_that_there_are_alone(tmp_path: Path) -> None:
    store, sweeper = tmp_path / "packed", {"sweeper": {"params": {}, "arms": ARMS}}
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "mixed.yaml").write_text(f"# @package _global_\n{json.dumps({'hydra': sweeper})}\n")
    packed = ("sweeps=mixed", f"hydra.searchpath=[file://{tmp_path}]", *SETTINGS, "hydra.launcher.slots=2")
    sweep = start(store, *packed, "hydra.launcher.pack=8")
    sweep.until(lambda: trained(store) > 14 * 20)
    workers(sweep)[0].kill()  # its runs are tried again, each alone
    sweep.until(lambda: trained(store) > 14 * 30)
    left = workers(sweep)
    sweep.kill()
    sweep.wait()
    psutil.wait_procs(left, timeout=60)
    assert "16 runs: 14 success, 1 paused, 1 diverged" in finish(store, *packed, "hydra.launcher.pack=8")
    found: dict[str, Any] = records(store)
    assert max(record["packed"] for record in found.values()) == 8
    for arm in ARMS:
        each = config(tmp_path / "alone", *SETTINGS, *(f"{key}={value}" for key, value in arm.items()))
        wanted, record = run(each, console=quiet()), found[plan(each).directory.path.name]
        assert (record["status"], record["steps"]) == (wanted["status"], wanted["steps"])
        if record["status"] != "diverged":
            assert_alike(replace(each, store=str(store)), each)


@pytest.mark.slow
def test_a_packed_study_selects_what_it_selects_unpacked(tmp_path: Path) -> None:
    folder = write(tmp_path)
    arguments = (f"sweeps={NAME}", f"hydra.searchpath=[file://{folder}]", *FP32[:2], "train.steps=8")
    chosen = []
    for name, more in (("alone", ()), ("packed", ("hydra.launcher.pack=4", "hydra.launcher.slots=1"))):
        finish(tmp_path / name, *arguments, *more)
        found = records(tmp_path / name)
        assert {record["packed"] > 1 for record in found.values()} == {name == "packed"}
        chosen.append({key for key, record in found.items() if record["config"]["seed"] >= 100})
    assert chosen[0] == chosen[1] and len(chosen[0]) == 4
