"""A sweep of 18 runs as one command of ours against 18 processes of HF Trainer + PEFT + create_loraplus_optimizer.

    python benchmarks/sweep.py            every arm's whole sweep once: about 20 minutes on two cores of an idle machine
    python benchmarks/sweep.py --quick    4 runs of 10 steps: a check that it works, not a measurement

The sweep: optim.lr x lora.ratio x seed = 3 x 3 x 2; MiniLM on rotten_tomatoes (5,100 rows), r = alpha = 8 on q and v,
100 steps of 32. The time is the wall time from the first command to the end of the last process, including every
start-up and one tokenisation (both sides start with empty caches).

ours: `python train.py -m ...` with the defaults and no tracker; the pool chooses its number of one-thread workers. A
run validates once, at the last step (1,700 rows), then tests (1,728), and writes metrics, predictions, a checkpoint
every 10 seconds, its adapter and its record.

side by side, one by one: benchmarks/peer_run.py, one process per run, as from a shell loop: one process per core, with
one thread each; or one process at a time, with all threads. A run takes the same number of steps on the same rows, then
evaluates the same rows once in the same batches by Trainer.evaluate and Trainer.predict, and saves only its adapter.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import ours
import pandas as pd
from rich.console import Console
from rich.table import Table
from saved import save

HERE = Path(__file__).resolve().parent
RESULT = HERE / "results" / "sweep.csv"
BATCH = 32
ROWS = {"train": 5100, "validation": 1700, "test": 1728}
ARMS = ("ours", "side by side", "one by one")
# The fastest variant with grouped batches in step_time.py, on two cores (results/step_time.csv).
VARIANT = ("--attention=eager", "--precision=weights")
GOAL = 2.0  # seconds of the better peer / ours
# Sanity check: the minimum mean accuracy (chance is 0.5), and the maximum difference of the sides' means.
LEARNED, ALIKE = 0.6, 0.03


@dataclass(frozen=True)
class Grid:
    """The sweep: every combination, trained for `steps` steps."""

    lr: tuple[str, ...] = ("4e-4", "8e-4", "1.6e-3")
    ratio: tuple[str, ...] = ("1", "4", "16")
    seed: tuple[str, ...] = ("0", "1")
    steps: int = 100

    def runs(self) -> list[tuple[str, str, str]]:
        """(lr, ratio, seed) of each run."""
        return list(itertools.product(self.lr, self.ratio, self.seed))


FULL, QUICK = Grid(), Grid(lr=("4e-4", "8e-4"), ratio=("16",), steps=10)


def name_of(lr: str | float, ratio: str | float, seed: str | int) -> str:
    """A run's name in the results."""
    return f"lr={float(lr):g} ratio={float(ratio):g} seed={seed}"


def sweep_of_ours(grid: Grid, folder: Path) -> dict[str, dict[str, float]]:
    """Trains the sweep in a fresh store; returns {run: {validation, test: accuracy}}."""
    axes = {"optim.lr": grid.lr, "lora.ratio": grid.ratio, "seed": grid.seed}
    swept = [f"{key}={','.join(values)}" for key, values in axes.items()]
    fixed = [f"train.steps={grid.steps}", "train.epochs=null", f"train.eval_every={grid.steps}"]
    # The pool sets the threads of its workers.
    free = {k: v for k, v in ours.environment(1).items() if k not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    ours.finish(ours.start(free, folder, "-m", *swept, *fixed))
    found = {}
    for path in (folder / "runs").glob("*/record.json"):
        record = json.loads(path.read_text())
        assert (record["status"], record["steps"], record["rows"]) == ("success", grid.steps, ROWS), path
        config = record["config"]
        scores = {split: record["metrics"][split]["last"]["accuracy"] for split in ("validation", "test")}
        found[name_of(config["optim"]["lr"], config["lora"]["ratio"], config["data_seed"])] = scores
    return found


def sweep_of_processes(grid: Grid, folder: Path, *, processes: int, threads: int) -> dict[str, dict[str, float]]:
    """Trains the sweep, one process per run, `processes` at a time; returns {run: {validation, test: accuracy}}."""
    environment = ours.environment(threads)
    shared = [*VARIANT, f"--steps={grid.steps}", f"--batch={BATCH}", f"--threads={threads}"]

    def one(run: tuple[str, str, str]) -> dict[str, float]:
        lr, ratio, seed = run
        command = [sys.executable, str(HERE / "peer_run.py"), *shared, f"--lr={lr}", f"--ratio={ratio}"]
        command += [f"--seed={seed}", f"--cache={folder / 'tokens'}", f"--to={folder / name_of(*run)}"]
        done = subprocess.run(command, env=environment, text=True, capture_output=True)
        if done.returncode != 0:
            raise RuntimeError(f"exit status {done.returncode} of {command!r}\n{done.stderr}")
        found = json.loads(done.stdout.splitlines()[-1])
        assert found["rows"] == ROWS, found["rows"]
        return {split: found[split] for split in ("validation", "test")}

    with ThreadPoolExecutor(processes) as pool:
        return {name_of(*run): scores for run, scores in zip(grid.runs(), pool.map(one, grid.runs()), strict=True)}


def measure(arm: str, grid: Grid, *, cores: int) -> tuple[float, dict[str, dict[str, float]]]:
    """Wall seconds of one arm's whole sweep, with empty caches, and its scores."""
    with tempfile.TemporaryDirectory(prefix="sweep_") as name:
        began = time.monotonic()
        if arm == "ours":
            scores = sweep_of_ours(grid, Path(name))
        else:
            processes = cores if arm == "side by side" else 1
            scores = sweep_of_processes(grid, Path(name), processes=processes, threads=cores // processes)
        seconds = time.monotonic() - began
    assert set(scores) == {name_of(*run) for run in grid.runs()}, f"{arm}: {sorted(scores)}"
    return seconds, scores


def rows_of(
    arms: list[str], grid: Grid, *, repeats: int, cores: int, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Rows (arm, repeat, run, name, value): the seconds of a sweep (its `run` is empty), the accuracies of each run."""
    rows: list[dict[str, Any]] = []
    for repeat in range(repeats):
        # Each repeat begins with another arm, so that a slowdown of the machine favours none.
        for arm in arms[repeat % len(arms) :] + arms[: repeat % len(arms)]:
            seconds, scores = measure(arm, grid, cores=cores)
            rows.append({"arm": arm, "repeat": repeat, "run": "", "name": "seconds", "value": seconds})
            for run, values in sorted(scores.items()):
                rows += [
                    {"arm": arm, "repeat": repeat, "run": run, "name": f"{split}_accuracy", "value": value}
                    for split, value in values.items()
                ]
            middle = {split: mean(values[split] for values in scores.values()) for split in ("validation", "test")}
            say(f"{repeat}: {arm} {seconds:.1f} s, mean accuracy {middle['validation']:.3f}, {middle['test']:.3f}")
    return rows


def report(rows: pd.DataFrame, grid: Grid, screen: Console) -> None:
    """Medians over the repeats, against the goal, and whether both sides learned."""
    seconds = rows[rows["name"] == "seconds"].groupby("arm", sort=False)["value"].median()
    scores = rows[rows["name"] != "seconds"].groupby(["arm", "name"], sort=False)["value"].mean()
    runs = len(grid.runs())
    title = f"{runs} runs of {grid.steps} steps"
    table = Table("arm", "seconds", "seconds a run", "times ours", "validation", "test", title=title, box=None)
    for arm, value in seconds.items():
        ratio = f"{value / seconds['ours']:.2f}" if "ours" in seconds else ""
        accuracies = (f"{scores[str(arm)][f'{split}_accuracy']:.3f}" for split in ("validation", "test"))
        table.add_row(str(arm), f"{value:.1f}", f"{value / runs:.1f}", ratio, *accuracies)
    screen.print(table)
    if len(seconds) < len(ARMS):
        return
    peers = seconds.drop("ours")
    screen.print(f"better peer ({peers.idxmin()}) {peers.min() / seconds['ours']:.2f}x ours (goal {GOAL})")
    among_arms = scores.groupby("name")
    apart, least = float((among_arms.max() - among_arms.min()).max()), float(scores.min())
    learned = "all learn" if least >= LEARNED else f"NOT all learn (the least is {least:.3f}, chance .500)"
    alike = "alike" if apart <= ALIKE else f"NOT alike (more than {ALIKE})"
    screen.print(f"sanity: {learned}; mean accuracies {apart:.3f} apart, {alike}")


def main() -> None:
    """Measures, prints the tables and, with --save, writes the CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--repeats", type=int, default=1, help="of every arm, in turns (default: 1)")
    parser.add_argument("--quick", action="store_true", help="4 runs of 10 steps")
    parser.add_argument("--save", action="store_true", help=f"write {RESULT.relative_to(HERE.parent)}")
    asked = parser.parse_args()
    grid = QUICK if asked.quick else FULL
    screen = Console(width=120)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    rows = pd.DataFrame(rows_of(asked.arms, grid, repeats=asked.repeats, cores=cores,
                                say=lambda text: screen.print(text, style="dim")))  # fmt: skip
    report(rows, grid, screen)
    if asked.save:
        save(rows, RESULT)


if __name__ == "__main__":
    main()
