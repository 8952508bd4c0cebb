"""Launchers with several processes: equal runs under each, and a preempted job is requeued and resumes."""

import json
import signal
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from loralab.config.compose import configs
from tests.processes import Process, Warm
from tests.small_runs import SMALL, outcome

ROOT = Path(__file__).resolve().parents[1]
# 3 ratios x 2 rates x 2 seeds: the runs of the sweep that every launcher trains.
GRID = ("train.steps=8", "lora.ratio=1,4,16", "optim.lr=1e-3,4e-3", "seed=0,1")
RUNS = 12
PART = (
    "train.steps=8",
    "lora.ratio=1,4,16",
    "optim.lr=1e-3",
    "seed=0",
)  # three runs if each starts a process
# One run of some seconds, which checkpoints only when it is stopped.
LONG = ("train.steps=240", "train.eval_every=80", "lora.dropout=0.1", "optim.lr=1e-3", "train.checkpoint_seconds=1000")


def start(store: Path, *overrides: str) -> Process:
    """Starts the multirun in a separate process, which writes to <store>/output."""
    store.mkdir(exist_ok=True)
    command = [sys.executable, str(ROOT / "train.py"), "-m", *SMALL, f"store={store}", *overrides]
    return Warm(command, store / "output", cwd=store)


def finish(store: Path, *overrides: str) -> str:
    """The multirun's output; fails unless it exits with 0."""
    return start(store, *overrides).ends()


def results(store: Path) -> dict[str, bytes]:
    """The bytes of each run's files that must be equal; the lines of metrics.jsonl without their clocks."""
    found = {}
    for run in sorted(store.glob("runs/*")):
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        found[f"{run.name}/lines"] = json.dumps([{**line, "seconds": 0} for line in lines]).encode()
        record = json.loads((run / "record.json").read_text())
        assert record["status"] == "success"
        found[f"{run.name}/metrics"] = json.dumps(record["metrics"]).encode()
        for path in (run / "predictions.parquet", *sorted((run / "adapter").iterdir())):
            found[f"{run.name}/{path.name}"] = path.read_bytes()
    return found


@pytest.fixture(scope="module")
def basic(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The sweep's results under Hydra's own launcher: one process, one run after the other."""
    store = tmp_path_factory.mktemp("basic")
    finish(store, "hydra/launcher=basic", *GRID)
    return results(store)


@pytest.mark.slow
def test_the_pool_gives_the_bytes_of_basic(basic: dict[str, bytes], tmp_path: Path) -> None:
    finish(tmp_path, "hydra/launcher=pool", *GRID)
    assert len(list(tmp_path.glob("runs/*"))) == RUNS
    there = results(tmp_path)
    assert there.keys() == basic.keys()
    assert [name for name in basic if there[name] != basic[name]] == []


@pytest.mark.slow
def test_submitit_gives_the_bytes_of_basic(basic: dict[str, bytes], tmp_path: Path) -> None:
    needs_submitit()
    finish(tmp_path, "hydra/launcher=submitit_local", *PART)
    there = results(tmp_path)
    assert len(list(tmp_path.glob("runs/*"))) == 3
    assert [name for name in there if there[name] != basic[name]] == []


@pytest.mark.slow
def test_ray_gives_the_bytes_of_basic(basic: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="needs the extra `ray` (docs/clusters.md)")
    pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="needs hydra-ray-launcher (docs/clusters.md)")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # otherwise it leaves a token in the home directory
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    text = finish(tmp_path, "hydra/launcher=ray_cluster", *PART)
    assert "_run_job" in text, "no task of Ray's wrote this"
    there = results(tmp_path)
    assert len(list(tmp_path.glob("runs/*"))) == 3
    assert [name for name in there if there[name] != basic[name]] == []


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("undisturbed")
    finish(store, "hydra/launcher=basic", *LONG)
    return store


@pytest.mark.slow
def test_a_preempted_job_is_requeued_and_loses_no_step(undisturbed: Path, tmp_path: Path) -> None:
    needs_submitit()
    sweep = start(tmp_path, "hydra/launcher=submitit_local", *LONG)
    job = job_of(sweep)
    sweep.until(lambda: executed(tmp_path) >= 60)
    job.send_signal(signal.SIGTERM)  # SLURM's first signal to a preempted job, which submitit ignores
    job.send_signal(signal.SIGUSR2)
    sweep.ends()
    assert outcome(tmp_path) == outcome(undisturbed)
    assert steps_executed(tmp_path) == 240
    logs = "".join(path.read_text() for path in tmp_path.rglob("*_log.*"))
    assert "Requeued job" in logs
    assert "going on from step" in logs


@pytest.mark.slow
def test_a_killed_job_goes_on_when_the_same_command_is_run_again(undisturbed: Path, tmp_path: Path) -> None:
    needs_submitit()
    often = "train.checkpoint_seconds=0.2"
    sweep = start(tmp_path, "hydra/launcher=submitit_local", *LONG, often)
    job = job_of(sweep)
    sweep.until(lambda: executed(tmp_path) >= 60 and any(tmp_path.glob("runs/*/checkpoint/state.pt")))
    job.kill()
    sweep.ends(1)
    before = executed(tmp_path)

    finish(tmp_path, "hydra/launcher=submitit_local", *LONG, often)
    assert outcome(tmp_path) == outcome(undisturbed)
    assert 240 <= steps_executed(tmp_path) < 240 + before


def test_the_slurm_preset_asks_for_what_it_says(tmp_path: Path) -> None:
    """Checks the batch file that submitit writes for this preset."""
    needs_submitit()
    from hydra import compose
    from omegaconf import OmegaConf
    from submitit.slurm.slurm import SlurmExecutor, _make_sbatch_string

    with configs():
        overrides = ["hydra/launcher=slurm", f"store={tmp_path}", "hydra.launcher.partition=gpu"]
        composed = compose("config", overrides, return_hydra_config=True)
    given = OmegaConf.to_container(composed.hydra.launcher, resolve=True)
    assert isinstance(given, dict)
    folder = given.pop("submitit_folder")
    assert folder == f"{tmp_path}/submitit/%j"
    assert given.pop("max_num_timeout") == 20
    del given["_target_"]
    names = SlurmExecutor._equivalence_dict()
    renamed: dict[str, Any] = {str(names.get(str(key), key)): value for key, value in given.items()}
    text = _make_sbatch_string("command", folder, map_count=100, **renamed).splitlines()
    asked = dict(line.removeprefix("#SBATCH --").partition("=")[::2] for line in text if line.startswith("#SBATCH"))
    wanted = {"array": "0-99%16", "requeue": "", "signal": "USR2@120", "time": "240", "partition": "gpu"}
    assert wanted.items() <= asked.items()
    assert (asked["gpus-per-node"], asked["cpus-per-task"], asked["ntasks-per-node"]) == ("1", "4", "1")


def needs_submitit() -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs the extra `slurm`")


def job_of(sweep: Process) -> psutil.Process:
    """The process of the sweep's only job, which receives SLURM's signals."""
    (job, *_) = sweep.until(lambda: [p for p in psutil.Process(sweep.pid).children(recursive=True) if _is_job(p)])
    assert isinstance(job, psutil.Process)
    return job


def _is_job(process: psutil.Process) -> bool:
    try:
        return "submitit.core._submit" in process.cmdline()
    except psutil.Error:
        return False


def executed(store: Path) -> int:
    found = list(store.glob("runs/*/executed"))
    return int(found[0].read_text().strip("\0") or 0) if found else 0


def steps_executed(store: Path) -> int:
    (path,) = store.glob("runs/*/record.json")
    return int(json.loads(path.read_text())["timing"]["steps_executed"])
