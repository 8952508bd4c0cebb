"""Real torchrun, two or three processes over gloo: one run's losses, one writer, and no ending loses the run."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from loralab.runs.run import run
from tests.processes import Process, Warm
from tests.runs.test_run import lines
from tests.small_runs import SMALL, config, outcome
from tests.test_end_to_end import LONG, between_two_checkpoints, checkpointed_step, executed

ROOT = Path(__file__).resolve().parents[1]


def start(store: Path, *overrides: str, count: int = 2, output: str = "output") -> Process:
    """Starts the command under torchrun, which writes to <store>/<output>."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={count}"]
    command = [*torchrun, str(ROOT / "train.py"), *SMALL, f"store={store}", *overrides]
    return Warm(command, store / output, env={**os.environ, "OMP_NUM_THREADS": "1"})


def finish(store: Path, *overrides: str, count: int = 2) -> str:
    return start(store, *overrides, count=count).ends()


def record(store: Path) -> dict[str, Any]:
    (path,) = store.glob("runs/*/record.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def files(store: Path) -> set[str]:
    """All files of the store, except the caches, which one process fills once, and the code's uncommitted diff."""
    found = {path.relative_to(store) for path in store.rglob("*") if path.is_file() and path.name != "output"}
    return {str(path) for path in found if path.parts[0] not in ("diffs", "cache")}


def ranks_of(torchrun: Process) -> list[psutil.Process]:
    """The processes of the run, rank 0 first."""
    return sorted(psutil.Process(torchrun.pid).children(), key=lambda child: int(child.environ()["RANK"]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "count"),
    [
        ((), 2),
        (("train.batch_size=7", "train.bucketing=false"), 2),  # 64 rows: the tenth batch has one row
        (("train.batch_size=2", "task=snippets", "method=head"), 3),  # regression; the third rank never has a row
    ],
    ids=["even", "short last batch", "fewer rows than ranks"],
)
def test_several_processes_have_the_losses_of_one(overrides: tuple[str, ...], count: int, tmp_path: Path) -> None:
    exact = ("train.precision=fp32", *overrides)
    run(config(tmp_path / "one", *exact))
    finish(tmp_path / "several", *exact, count=count)

    found, expected = lines(tmp_path / "several"), lines(tmp_path / "one")
    assert len(expected) == 14
    for got, wanted in zip(found, expected, strict=True):
        assert (got["step"], got["split"], got["lr_A"]) == (wanted["step"], wanted["split"], wanted["lr_A"])
        assert got["values"] == pytest.approx(wanted["values"], abs=1e-5)
    several, one = record(tmp_path / "several"), record(tmp_path / "one")
    assert several["run_id"] == one["run_id"]
    assert (several["ranks"], one["ranks"]) == (count, 1)
    for split in ("validation", "test"):
        assert several["metrics"][split]["last"] == pytest.approx(one["metrics"][split]["last"], abs=1e-5)
    assert several["timing"]["tokens"] == one["timing"]["tokens"]
    assert several["timing"]["steps_executed"] == 12
    assert files(tmp_path / "several") == files(tmp_path / "one")


@pytest.mark.slow
def test_rank_0_alone_speaks_and_tracks_and_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    tracked = ("tracker=wandb", "tracker.mode=offline")
    text = finish(tmp_path, *tracked)
    assert text.count("12/12  train") == text.count("\nsuccess\n") == 1
    assert len(list(tmp_path.glob("wandb/offline-run-*"))) == 1
    before = record(tmp_path)
    assert "this run is already done" in finish(tmp_path, *tracked)
    assert record(tmp_path) == before


@pytest.mark.slow
def test_all_ranks_see_a_divergence(tmp_path: Path) -> None:
    finish(tmp_path, "optim.lr=1e6", "optim.clip=null", "train.steps=40", "optim.warmup=0")
    found = record(tmp_path)
    assert found["status"] == "diverged"
    assert found["steps"] < 40


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("undisturbed")
    finish(store, *LONG)
    return store


@pytest.mark.slow
def test_resume_after_the_whole_tree_is_killed_is_bitwise_equal(undisturbed: Path, tmp_path: Path) -> None:
    torchrun = start(tmp_path, *LONG)
    torchrun.until(lambda: between_two_checkpoints(tmp_path))
    torchrun.kill_tree()
    assert not list(tmp_path.glob("runs/*/record.json"))
    lost = executed(tmp_path) - checkpointed_step(tmp_path)
    assert lost > 0
    assert "going on from step" in finish(tmp_path, *LONG)
    assert outcome(tmp_path) == outcome(undisturbed)
    assert record(tmp_path)["timing"]["steps_executed"] == 240 + lost
    assert files(tmp_path) == files(undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("to", "number", "status"),
    [
        ("torchrun", signal.SIGTERM, 143),
        ("torchrun", signal.SIGINT, 130),
        ("0", signal.SIGTERM, 143),
        ("1", signal.SIGINT, 130),
    ],
)
def test_a_signal_to_any_stops_all_at_one_step(
    to: str, number: signal.Signals, status: int, undisturbed: Path, tmp_path: Path
) -> None:
    torchrun = start(tmp_path, *LONG, "train.checkpoint_seconds=1000")
    torchrun.until(lambda: executed(tmp_path) >= 60)
    ranks = ranks_of(torchrun)
    (torchrun if to == "torchrun" else ranks[int(to)]).send_signal(number)
    assert torchrun.status() != 0
    text = torchrun.text()
    assert text.count("run the same command again to resume") == 1
    if to != "torchrun":  # torchrun reports the exit status of the first process that ended
        assert f"exitcode  : {status}" in text
    assert checkpointed_step(tmp_path) == executed(tmp_path)  # otherwise a later step of some rank is lost
    assert "going on from step" in finish(tmp_path, *LONG)
    assert outcome(tmp_path) == outcome(undisturbed)
    assert record(tmp_path)["timing"]["steps_executed"] == 240


@pytest.mark.slow
@pytest.mark.parametrize("dead", [0, 1])
def test_when_one_rank_dies_the_others_end_and_the_same_command_goes_on(
    dead: int, undisturbed: Path, tmp_path: Path
) -> None:
    torchrun = start(tmp_path, *LONG)
    torchrun.until(lambda: between_two_checkpoints(tmp_path))
    ranks_of(torchrun)[dead].kill()
    assert torchrun.status() != 0
    if dead:
        failed = record(tmp_path)
        assert failed["status"] == "failed"
        assert "another process of this run has ended" in failed["error"]
    else:
        assert not list(tmp_path.glob("runs/*/record.json"))
    finish(tmp_path, *LONG)
    assert outcome(tmp_path) == outcome(undisturbed)


@pytest.mark.slow
def test_a_run_may_go_on_with_another_number_of_processes(tmp_path: Path) -> None:
    settings = ("train.steps=240", "train.eval_every=80", "train.precision=fp32", "optim.lr=1e-3")
    run(config(tmp_path / "one", *settings))
    torchrun = start(tmp_path / "cut", *settings, "train.checkpoint_seconds=0.5")
    torchrun.until(lambda: between_two_checkpoints(tmp_path / "cut"))
    torchrun.kill_tree()
    run(config(tmp_path / "cut", *settings))
    found = record(tmp_path / "cut")
    assert found["ranks"] == 1
    assert found["metrics"]["test"]["last"]["loss"] == pytest.approx(
        record(tmp_path / "one")["metrics"]["test"]["last"]["loss"], abs=1e-3
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (("train.max_length=5000",), "error: train.max_length: got 5000; tiny takes at most 256 tokens"),
        (("train.max_len=5000",), "error: train.max_len: no such key"),
        (("-m", "seed=0,1"), "error: torchrun's 2 processes train one run together"),
        (("train.device=cuda:1",), "error: train.device: got 'cuda:1'"),
    ],
    ids=["set-up", "composing", "multirun", "device"],
)
def test_a_mistake_is_one_line_and_nothing_hangs(overrides: tuple[str, ...], line: str, tmp_path: Path) -> None:
    torchrun = start(tmp_path, *overrides)
    assert torchrun.status() != 0
    text = torchrun.text()
    assert [found for found in text.splitlines() if "error: " in found and found.startswith(line)] == [
        found for found in text.splitlines() if found.startswith(("error: ", "failed: "))
    ]
    assert text.count(line) == 1
    assert "exitcode  : 2 " in text


@pytest.mark.slow
@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_two_gpus_have_the_losses_of_one(tmp_path: Path) -> None:
    exact = ("train.precision=fp32", "train.device=cuda")
    run(config(tmp_path / "one", *exact))
    finish(tmp_path / "two", *exact)
    for got, wanted in zip(lines(tmp_path / "two"), lines(tmp_path / "one"), strict=True):
        assert got["values"] == pytest.approx(wanted["values"], abs=1e-4)
    assert record(tmp_path / "two")["ranks"] == 2


@pytest.mark.slow
def test_all_ranks_pause_at_one_step_and_go_on_to_the_same_bytes(undisturbed: Path, tmp_path: Path) -> None:
    for at in (60, 0.5):
        text = finish(tmp_path, *LONG, f"train.pause_at={at}")
        assert text.count("the same command without train.pause_at goes on") == 1
        assert (record(tmp_path)["status"], record(tmp_path)["steps"]) == ("paused", 60 if at == 60 else 120)
    before = record(tmp_path)
    assert "this run is already there" in finish(tmp_path, *LONG, "train.pause_at=100")
    assert record(tmp_path) == before
    finish(tmp_path, *LONG)
    assert outcome(tmp_path) == outcome(undisturbed)
    assert record(tmp_path)["timing"]["steps_executed"] == 240
    assert files(tmp_path) == files(undisturbed)
