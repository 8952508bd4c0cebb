"""Sweeps of real processes that are killed: finished runs stay, and the others end as in an undisturbed sweep."""

import contextlib
import itertools
import json
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from loralab.inspect.watched_sweep import WatchedSweep, listed
from loralab.runs.run import run
from tests.processes import LONGEST, Process, Warm
from tests.small_runs import SMALL, config
from tests.small_studies import write

ROOT = Path(__file__).resolve().parents[1]
STEPS = 150
GRID = ("lora.ratio=1,4,16", "seed=0,1,2,3,4,5", f"train.steps={STEPS}", "train.eval_every=75")
PART = ("lora.ratio=1,4,16", "seed=0,1", *GRID[2:])  # a third of these runs
SETTINGS = ("task=trec", "train.checkpoint_seconds=0.2")


def start(store: Path, *arguments: str, program: str = "train.py", output: str = "output") -> Process:
    """Starts a sweep in a new session; its output goes to a file in the store."""
    environment = {**os.environ, "LORALAB_STORE": str(store), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / program), "-m", *SMALL, *SETTINGS]
    return Warm([*command, *arguments], store / output, env=environment, start_new_session=True)


def finish(store: Path, *arguments: str, status: int = 0, program: str = "train.py") -> str:
    """Runs a sweep to its end and returns its output."""
    return start(store, *arguments, program=program, output="last").ends(status)


def workers(parent: Process) -> list[psutil.Process]:
    """The pool's worker processes, which are session leaders."""
    try:
        children = psutil.Process(parent.pid).children()
    except psutil.NoSuchProcess:
        return []
    return [child for child in children if os.getsid(child.pid) == child.pid]


def records(store: Path) -> dict[str, dict[str, Any]]:
    """Every record, by the name of its run."""
    return {path.parent.name: json.loads(path.read_text()) for path in (store / "runs").glob("*/record.json")}


def contents(store: Path, seeds: int = 6) -> dict[str, Any]:
    """The outputs that must be equal in two sweeps, by run: scores, metrics without their clocks, and bytes.

    seeds: only this many first seeds.
    """
    found = {}
    for name, record in records(store).items():
        if record["config"]["seed"] >= seeds:
            continue
        run = store / "runs" / name
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        for line in lines:
            del line["seconds"]
        files = ("predictions.parquet", "adapter/adapter_model.safetensors")
        found[name] = (record["status"], record["metrics"], lines, *((run / file).read_bytes() for file in files))
    return found


def watched(store: Path) -> dict[str, Any]:
    """What `loralab watch` shows of a store's only sweep."""
    (name,) = listed(store)
    return WatchedSweep(store, name).look()


def executed(run: Path) -> int:
    return int((run / "executed").read_text() or "0")


def trained(store: Path) -> int:
    """The number of steps of all runs, finished or not."""
    under_way = 0
    for path in store.glob("runs/*/executed"):
        with contextlib.suppress(FileNotFoundError):  # the run has just ended
            under_way += executed(path.parent)
    return under_way + STEPS * len(list(store.glob("runs/*/record.json")))


def saved_step(run: Path) -> int:
    path = run / "checkpoint" / "state.pt"
    return int(torch.load(path, weights_only=True)["progress"]["step"]) if path.exists() else 0


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Number of seeds -> a store with the runs of at least that many, trained here one after the other."""
    store = tmp_path_factory.mktemp("undisturbed")

    def of(seeds: int) -> Path:
        for seed, ratio in itertools.product(range(seeds), (1, 4, 16)):
            run(config(store, *SETTINGS, f"lora.ratio={ratio}", f"seed={seed}", *GRID[2:]))
        return store

    return of


def kill_one_worker(sweep: Process, store: Path, lost: dict[str, int]) -> None:
    """Kills a training worker (SIGKILL) and adds to `lost` the steps of its run since its checkpoint."""

    def at_work() -> tuple[psutil.Process, Path] | None:
        for worker in workers(sweep):
            for file in worker.open_files():
                if file.path.endswith("metrics.jsonl"):
                    return worker, Path(file.path).parent
        return None

    worker, run = sweep.until(at_work)
    worker.suspend()  # stopped first, so that the read state is final
    if (run / "executed").exists():  # otherwise it was ending the run at this moment
        since = executed(run) - lost.get(run.name, 0) - saved_step(run)
        assert since >= 0
        lost[run.name] = lost.get(run.name, 0) + since
    worker.kill()


def wait_for_steps(sweep: Process, store: Path, count: int) -> None:
    """Waits until the sweep's runs have done this many more steps."""
    enough = trained(store) + count
    sweep.until(lambda: trained(store) >= enough)


@pytest.mark.slow
@pytest.mark.parametrize(("kills", "grid", "runs"), [(1, PART, 6), (3, GRID, 18)], ids=["once", "three times"])
def test_a_killed_sweep_ends_as_if_it_never_was(
    kills: int, grid: tuple[str, ...], runs: int, undisturbed: Callable[[int], Path], tmp_path: Path
) -> None:
    whole = undisturbed(runs // 3)
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    print(f"moments from seed {seed}")
    lost: dict[str, int] = {}
    done = 0
    for _ in range(kills):
        sweep = start(tmp_path, *grid, output=f"killed-{done}")
        sweep.until(lambda done=done: len(records(tmp_path)) > done)  # type: ignore[misc]  # mypy does not support this default
        assert watched(tmp_path)["state"] == "training" and watched(tmp_path)["total"] == runs
        # counted in steps, not in seconds: at most four runs end in a round, on any machine
        wait_for_steps(sweep, tmp_path, chance.randrange(STEPS // 2))
        kill_one_worker(sweep, tmp_path, lost)
        wait_for_steps(sweep, tmp_path, chance.randrange(STEPS // 2))
        left = workers(sweep)
        sweep.kill()
        sweep.wait()
        psutil.wait_procs(left, timeout=LONGEST)
        assert not any(worker.is_running() for worker in left)
        assert watched(tmp_path)["state"] == "killed"
        done = len(records(tmp_path))
    assert done < runs, "nothing was left to be disturbed"

    text = finish(tmp_path, *grid)
    assert f"{runs} runs: {runs} success" in text
    assert watched(tmp_path)["summary"] == f"{runs} of {runs} done; it has ended"
    assert contents(tmp_path) == contents(whole, seeds=runs // 3)
    executed_steps = sum(record["timing"]["steps_executed"] for record in records(tmp_path).values())
    print(f"steps trained again: {lost}")
    assert executed_steps == runs * STEPS + sum(lost.values())


@pytest.mark.slow
def test_what_goes_wrong_costs_its_own_run_alone(tmp_path: Path) -> None:
    """Seeds 1, 2 and 4 raise, exit and hang (tests/sabotaged.py), 3 diverges; 0 and 5 succeed."""
    arms = "[{seed:[0,1,2,4,5],optim.lr:0.001},{seed:3,optim.lr:1e9,optim.clip:null}]"
    command = (f"hydra.sweeper.arms={arms}", "hydra.launcher.timeout=10")
    text = finish(tmp_path, *command, program="tests/sabotaged.py", status=1)
    assert "6 runs: 2 success, 1 diverged, 3 failed" in text
    table = text[text.index("what happened") :]
    for expected in (
        "seed=1 optim.lr=0.001                       RuntimeError: seed 1 raises",
        "seed=2 optim.lr=0.001                       its process ended with exit status 3",
        "seed=4 optim.lr=0.001                       it hung: no sign of life for 10 s",
        "seed=3 optim.lr=1000000000 optim.clip=null  at step",
    ):
        assert expected in table, text
    by_seed = {record["config"]["seed"]: record for record in records(tmp_path).values()}
    assert {seed: record["status"] for seed, record in by_seed.items()} == {
        0: "success", 1: "failed", 2: "failed", 3: "diverged", 4: "failed", 5: "success",
    }  # fmt: skip
    assert "seed 2 leaves" in by_seed[2]["error"], "what it printed is kept"
    assert "sabotaged.py" in by_seed[4]["error"], "where it hung is kept"

    again = finish(tmp_path, *command, program="tests/sabotaged.py", status=1)
    assert "6 runs, done before: 1 diverged, 2 success; 3 to train" in again
    after = {record["config"]["seed"]: record["started"] for record in records(tmp_path).values()}
    tried = {seed for seed, started in after.items() if started != by_seed[seed]["started"]}
    assert tried == {1, 2, 4}


@pytest.mark.slow
def test_on_error_stop_leaves_the_others_for_later(tmp_path: Path) -> None:
    text = finish(
        tmp_path, "seed=1,0,5,6,7,8", "train.steps=400", "hydra.launcher.on_error=stop",
        program="tests/sabotaged.py", status=1,
    )  # fmt: skip
    assert "1 failed" in text
    assert "stopped" in text
    assert len(records(tmp_path)) < 6


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_checkpoints_what_runs_and_the_same_command_goes_on(
    number: signal.Signals, status: int, undisturbed: Callable[[int], Path], tmp_path: Path
) -> None:
    sweep = start(tmp_path, *PART)
    sweep.until(lambda: len(records(tmp_path)) >= 2)
    running = workers(sweep)
    sweep.send_signal(number)
    assert "the same command goes on from here" in sweep.ends(status)
    assert not any(worker.is_running() for worker in running)

    finish(tmp_path, *PART)
    assert contents(tmp_path) == contents(undisturbed(2), seeds=2)
    executed_steps = sum(record["timing"]["steps_executed"] for record in records(tmp_path).values())
    assert executed_steps == 6 * STEPS, "a run that was asked to stop repeats no step"


@pytest.mark.slow
def test_two_sweeps_at_once_share_the_work(undisturbed: Callable[[int], Path], tmp_path: Path) -> None:
    both = [start(tmp_path, *PART, output=name) for name in ("first", "second")]
    for sweep in both:
        assert "6 runs: 6 success" in sweep.ends()
    assert contents(tmp_path) == contents(undisturbed(2), seeds=2)
    executed_steps = sum(record["timing"]["steps_executed"] for record in records(tmp_path).values())
    assert executed_steps == 6 * STEPS, "no run was trained by both"


@pytest.mark.slow
def test_a_finished_sweep_trains_nothing_again(undisturbed: Callable[[int], Path]) -> None:
    store = undisturbed(2)
    before = {name: record["ended"] for name, record in records(store).items()}
    text = finish(store, *PART)
    assert "6 runs, done before: 6 success" in text
    assert {name: record["ended"] for name, record in records(store).items()} == before


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["pool", "basic"])
def test_a_sweep_that_pauses_is_complete_and_a_later_one_ends_as_if_it_never_did(launcher: str, tmp_path: Path) -> None:
    few = ("lora.ratio=1,4", "seed=0", "train.steps=60", "train.eval_every=0.1", f"hydra/launcher={launcher}")
    finish(tmp_path / "whole", *few)
    for _ in range(2):  # the second one finds all of them there
        finish(tmp_path / "paused", *few, "train.pause_at=0.3")
        assert [(record["status"], record["steps"]) for record in records(tmp_path / "paused").values()] == [
            ("paused", 18)
        ] * 2
    finish(tmp_path / "paused", *few)
    assert contents(tmp_path / "paused") == contents(tmp_path / "whole")
    assert {record["timing"]["steps_executed"] for record in records(tmp_path / "paused").values()} == {60}


@pytest.mark.slow
def test_the_second_stage_waits_for_a_first_one_that_pauses(tmp_path: Path) -> None:
    study = (
        f"hydra.searchpath=[file://{write(tmp_path)}]",
        "+sweeps=two_stages",
        "train.steps=3",
        "train.eval_every=3",
    )
    store = tmp_path / "store"
    text = finish(store, *study, "train.pause_at=2", "seed=0")
    assert text.endswith("the second stage waits: 4 of 4 runs of the first stage are not done\n")
    assert {record["status"] for record in records(store).values()} == {"paused"}
    finish(store, *study, "seed=0")
    assert [record["status"] for record in records(store).values()] == ["success"] * 8
