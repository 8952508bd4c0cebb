"""Overhead of a sweep beyond training: time per run of the pool, its worker's memory, and rerunning a finished sweep.

    python benchmarks/pool.py            200 runs, about 10 minutes, on an otherwise idle machine
    python benchmarks/pool.py --quick    12 runs: a check that it works, not a measurement

Every run is `model=tiny`, 2 steps, no tracker. Three parts:
overhead: `python train.py -m` with one slot, then with two, each in a fresh store. A run's overhead is the time from
    its predecessor's end in the same slot to its own end, minus the training and evaluation time in its record. It is
    the sum of the time between the two runs (writing the record, the pool, composing, planning), the run's set-up
    (texts, backbone, adapter, optimizer) and the rest of the run (its files). A slot's first two runs do not count.
memory: resident memory of the single slot's worker after run 5 and run 50.
rerun: the same command after the sweep is finished, against an empty multirun of Hydra (basic launcher and sweeper, a
    function that does nothing) and against composing alone. Times of whole processes, except for composing.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median
from typing import Any

import ours
import pandas as pd
import psutil
from rich.console import Console
from rich.table import Table
from saved import save

from loralab.config.compose import configs

HERE = Path(__file__).resolve().parent
RESULT = HERE / "results" / "pool.csv"
RUN = ("model=tiny", "task=trec", "train.steps=2", "train.device=cpu", "tracker=none")
WARM = 2  # first runs of a slot, which are not counted
WATCH_SECONDS = 0.02  # between two measurements of the worker's memory
GOAL_MS = 50.0  # per run: of the overhead, and of a finished run beyond Hydra's composing


class Bench:
    """The measurements. Each adds rows (part, arm, repeat, name, value) to `rows`."""

    def __init__(self, folder: Path, *, runs: int, launcher: str, say: Callable[[str], None]) -> None:
        self.folder, self.runs, self.say = folder, runs, say
        self.launcher = [] if launcher == "pool" else [f"hydra/launcher={launcher}"]
        self.sweep = [*RUN, f"seed=range(0,{runs})"]
        self.marks = (5, 50) if runs > 50 else (5, runs - 2)
        self.rows: list[dict[str, Any]] = []

    def add(self, part: str, arm: str, repeat: int, values: dict[str, float]) -> None:
        """Adds one row per value."""
        self.rows += [{"part": part, "arm": arm, "repeat": repeat, "name": n, "value": v} for n, v in values.items()]

    def train(self, slots: int) -> None:
        """Trains the sweep in a fresh store; adds the overhead, and with one slot the worker's memory."""
        store = self._store(slots)
        settings = [] if self.launcher else [f"hydra.launcher.slots={slots}"]
        began = time.monotonic()
        process, log = self._start("train.py", store, *self.launcher, *settings)
        memory = self._watch(process, store)
        _check(process, log)
        seconds = time.monotonic() - began
        records = [json.loads(path.read_text()) for path in (store / "runs").glob("*/record.json")]
        assert [r["status"] for r in records] == ["success"] * self.runs, f"{len(records)} records"
        values = overheads(records, slots)
        arm = f"{slots} slot{'s' if slots > 1 else ''}"
        self.add("overhead", arm, 0, {"runs": self.runs, "sweep_seconds": seconds, **values})
        self.say(f"{arm}: {self.runs} runs in {seconds:.1f} s, overhead {values['overhead_ms']:.0f} ms a run")
        if slots == 1:
            self.add("memory", "worker", 0, memory)

    def rerun(self, repeat: int) -> None:
        """Measures the finished sweep and Hydra alone, once each."""
        done = self._seconds("train.py", self._store(1), *self.launcher)
        basic = ("hydra/launcher=basic", "hydra/sweeper=basic")
        empty = self._seconds("benchmarks/composing.py", self.folder / "empty", *basic)
        composing = self._composing()
        for arm, seconds in (("finished sweep", done), ("empty multirun", empty), ("composing alone", composing)):
            self.add("rerun", arm, repeat, {"seconds": seconds, "ms_per_run": 1e3 * seconds / self.runs})
        self.say(f"rerun {repeat}: {done:.2f} s, an empty multirun {empty:.2f} s, composing alone {composing:.2f} s")

    def _store(self, slots: int) -> Path:
        return self.folder / f"slots{slots}"

    def _start(self, program: str, store: Path, *settings: str) -> tuple[subprocess.Popen[bytes], Path]:
        """Starts the sweep's command; its output goes to a file, since hundreds of runs would fill a pipe."""
        command = [sys.executable, str(HERE.parent / program), "-m", *self.sweep, f"store={store}", *settings]
        # The pool sets the threads of its workers.
        free = {k: v for k, v in ours.environment(1).items() if k not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        log = self.folder / "log"
        with log.open("wb") as stream:
            return subprocess.Popen(command, env=free, cwd=HERE.parent, stdout=stream, stderr=stream), log

    def _seconds(self, program: str, store: Path, *settings: str) -> float:
        began = time.monotonic()
        process, log = self._start(program, store, *settings)
        _check(process, log)
        return time.monotonic() - began

    def _watch(self, process: subprocess.Popen[bytes], store: Path) -> dict[str, float]:
        """The worker's memory in MB after each number of runs in `marks`, and the number of worker processes."""
        parent, found, pids = psutil.Process(process.pid), {}, set()
        marks = list(self.marks)
        while process.poll() is None and marks:
            if len(list((store / "runs").glob("*/record.json"))) >= marks[0]:
                worker = _worker(parent)
                pids.add(worker.pid)
                found[f"rss_mb_run_{marks.pop(0)}"] = worker.memory_info().rss / 2**20
            time.sleep(WATCH_SECONDS)
        return {**found, "processes": len(pids)}

    def _composing(self) -> float:
        from hydra import compose

        began = time.monotonic()
        with configs():
            for seed in range(self.runs):
                compose("config", [*RUN, f"seed={seed}", f"store={self.folder}"], return_hydra_config=True)
        return time.monotonic() - began


def _worker(parent: psutil.Process) -> psutil.Process:
    """The child with the most memory (multiprocessing also has small ones); without children, the parent."""
    children = parent.children(recursive=True)
    return max(children, key=lambda child: child.memory_info().rss) if children else parent


def _check(process: subprocess.Popen[bytes], log: Path) -> None:
    if process.wait() != 0:
        raise RuntimeError(f"exit status {process.returncode} of {process.args!r}\n{log.read_text()[-5000:]}")


def overheads(records: list[dict[str, Any]], slots: int) -> dict[str, float]:
    """Overhead of a warm run in ms: median and mean of the total, medians of its three parts."""
    ends: list[list[float]] = [[] for _ in range(slots)]  # of each slot's runs
    parts: list[tuple[float, float, float]] = []
    for record in sorted(records, key=lambda r: r["started"]):
        # Records do not name their slot: take the one that became free last. The sum over the runs does not depend
        # on the choice among free slots.
        free = [past for past in ends if not past or past[-1] <= record["started"]]
        slot = max(free, key=lambda past: past[-1] if past else 0.0)
        if len(slot) >= WARM:
            inside = record["ended"] - record["started"]
            set_up = record["timing"]["set_up_seconds"]
            rest = inside - set_up - record["timing"]["seconds"]
            parts.append((record["started"] - slot[-1], set_up, rest))
        slot.append(record["ended"])
    whole = [1e3 * sum(part) for part in parts]
    names = ("between_ms", "set_up_ms", "rest_ms")
    split = {name: 1e3 * median(values) for name, values in zip(names, zip(*parts, strict=True), strict=True)}
    return {"overhead_ms": median(whole), "overhead_mean_ms": mean(whole), **split}


def report(rows: pd.DataFrame, screen: Console) -> None:
    """Medians over the repeats, against the goals."""
    middle = rows.groupby(["part", "arm", "name"], sort=False)["value"].median()
    if "overhead" in middle:
        title = "overhead of a warm run, ms (medians)"
        table = Table("", "overhead", "its mean", "between runs", "set-up", "rest", title=title, box=None)
        names = ("overhead_ms", "overhead_mean_ms", "between_ms", "set_up_ms", "rest_ms")
        for arm in middle["overhead"].index.unique("arm"):
            table.add_row(arm, *(f"{middle['overhead'][arm][name]:.1f}" for name in names))
        screen.print(table)
        screen.print(f"goal: under {GOAL_MS:.0f} ms beyond training and evaluation\n")
    if "memory" in middle:
        memory = dict(middle["memory"]["worker"])
        processes = memory.pop("processes")
        same = "one process" if processes == 1 else f"NOT one process: {processes:.0f}"
        said = ", ".join(f"after run {name.rsplit('_', 1)[1]} {value:.0f} MB" for name, value in memory.items())
        screen.print(f"worker's memory: {said} ({same})\n")
    if "rerun" in middle:
        ms = {arm: middle["rerun"][arm]["ms_per_run"] for arm in middle["rerun"].index.unique("arm")}
        screen.print("a run, ms: " + ", ".join(f"{arm} {value:.1f}" for arm, value in ms.items()))
        done = ms.pop("finished sweep")
        beyond = ", ".join(f"{arm} {done - value:+.1f}" for arm, value in ms.items())
        screen.print(f"a finished run beyond Hydra's own, ms: {beyond} (goal: under {GOAL_MS:.0f})")


def main() -> None:
    """Measures, prints the tables and, with --save, writes the CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=None, help="default: 200, or 12 with --quick; 8 at least")
    parser.add_argument("--repeats", type=int, default=3, help="of the rerun, in turns (default: 3, 1 with --quick)")
    parser.add_argument("--launcher", default="pool", help="another one, e.g. basic, for comparison: no slots then")
    parser.add_argument("--quick", action="store_true", help="12 runs, one repeat")
    parser.add_argument("--save", action="store_true", help=f"write {RESULT.relative_to(HERE.parent)}")
    asked = parser.parse_args()
    runs = asked.runs or (12 if asked.quick else 200)
    if runs < 8:
        parser.error(f"--runs: got {runs}; 8 at least, for the first {WARM} of each slot do not count")
    screen = Console(width=120)
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory(prefix="pool_") as folder:
        bench = Bench(Path(folder), runs=runs, launcher=asked.launcher, say=lambda t: screen.print(t, style="dim"))
        for slots in (1, 2) if asked.launcher == "pool" else (1,):
            bench.train(slots)
        for repeat in range(1 if asked.quick else asked.repeats):
            bench.rerun(repeat)
    rows = pd.DataFrame(bench.rows)
    report(rows, screen)
    if asked.save:
        save(rows, RESULT)


if __name__ == "__main__":
    main()
