"""Packed sweeps of real processes: killed ones end as their runs do alone, and studies select the same."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from loralab.config.schema import Config
from loralab.runs.plan import plan
from loralab.runs.run import run
from tests.runs.test_pack import FP32, assert_alike, quiet
from tests.small_runs import config
from tests.small_studies import NAME, write
from tests.test_sweep import finish, records, start, trained, workers

# 16 runs that differ in λ, rank, init and both seeds.
GRID = ("lora.ratio=1,16", "lora.rank=2,8", "lora.init=A,B", "seed=0,1")
SETTINGS = (*FP32, "train.steps=60", "train.eval_every=30", "optim.lr=1e-3")
PACKED = (*GRID, *SETTINGS, "hydra.launcher.pack=8", "hydra.launcher.slots=2", "train.checkpoint_seconds=0.1")


def alone(folder: Path) -> list[Config]:
    """The runs of GRID, trained one after the other."""
    found = [
        config(folder, *SETTINGS, f"lora.ratio={ratio}", f"lora.rank={rank}", f"lora.init={init}", f"seed={seed}")
        for ratio in (1, 16)
        for rank in (2, 8)
        for init in "AB"
        for seed in (0, 1)
    ]
    for each in found:
        run(each, console=quiet())
    return found


@pytest.mark.slow
def test_a_killed_packed_sweep_has_the_runs_that_there_are_alone(tmp_path: Path) -> None:
    store = tmp_path / "packed"
    sweep = start(store, *PACKED)
    sweep.until(lambda: trained(store) > 16 * 20)
    workers(sweep)[0].kill()  # its runs are tried again, each alone
    sweep.until(lambda: trained(store) > 16 * 30)
    left = workers(sweep)
    sweep.kill()
    sweep.wait()
    psutil.wait_procs(left, timeout=60)
    text = finish(store, *PACKED)
    assert "16 runs: 16 success" in text
    found: dict[str, Any] = records(store)
    assert max(record["packed"] for record in found.values()) == 8
    for each in alone(tmp_path / "alone"):
        assert found[plan(each).directory.path.name]["status"] == "success"
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
