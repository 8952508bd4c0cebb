"""Time to read a large store: 5,000 run directories into the table of `loralab collect`, on one core.

    python benchmarks/collect.py              about a minute, most of which makes the directories
    python benchmarks/collect.py --runs 500

A run of the tiny backbone is copied, with another hash, seed, ratio and learning rate in each record. Of every hundred
runs two have failed, one was cut off and one was never started; all have a lock file. Cold is the first call, after the
kernel was asked to drop the files' pages; warm is the second. The goal is a cold table in 10 seconds.
"""

import argparse
import io
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hydra import compose

from loralab.config.compose import configs
from loralab.config.schema import from_hydra
from loralab.runs.console import Console
from loralab.runs.run import run
from loralab.sweeps.cell import Cell
from loralab.sweeps.collect import curves, table
from loralab.sweeps.estimate import Estimator

CONF = Path(__file__).resolve().parents[1] / "conf"
GOAL = 10.0
RATES = [1e-4 * 2**n for n in range(10)]
SHORT = (
    "model=tiny",
    "tracker=none",
    "task.train_rows=256",
    "train.steps=100",
    "train.batch_size=8",
    "train.threads=1",
)


def main() -> None:
    """Makes the store, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        first, many = Path(folder, "first"), Path(folder, "many")
        with configs():
            config = from_hydra(compose("config", [*SHORT, f"store={first}"]))
        run(config, console=Console(io.StringIO(), io.StringIO()))
        (original,) = (first / "runs").iterdir()
        cells = [copied(original, many, number) for number in range(asked.runs)]
        megabytes = forget(many) / 2**20
        print(f"{asked.runs} runs, {megabytes:.0f} MiB")
        frame = timed("table, cold", lambda: table(many, cells), goal=GOAL)
        timed("table, warm", lambda: table(many, cells))
        timed("curves of validation", lambda: curves(many, cells, split="validation"))
        timed("first estimate of a run's time", lambda: Estimator(many).seconds(asdict(config)))
    print(frame["status"].value_counts().to_string())
    assert len(frame) == asked.runs and frame["status"].isin(["success", "failed", "cut off", "missing"]).all()


def copied(original: Path, store: Path, number: int) -> Cell:
    """Creates run `number`: copies small files, links the others, and writes a record with new settings and scores."""
    digest = f"{number:010x}"
    axes = {"seed": number // 50, "lora.ratio": 4 ** (number // 10 % 5), "optim.lr": RATES[number % 10]}
    cell = Cell((), axes, "grid", f"{original.name.rpartition('-')[0]}-{digest}")
    path = store / "runs" / cell.run
    (store / "locks").mkdir(parents=True, exist_ok=True)
    (store / "locks" / f"{digest}.lock").touch()
    if number % 100 == 99:
        return cell
    (path / "adapter").mkdir(parents=True)
    for file in original.rglob("*.*"):
        if file.name in ("config.yaml", "metrics.jsonl"):
            (path / file.name).write_bytes(file.read_bytes())
        elif file.name != "record.json":
            os.link(file, path / file.relative_to(original))
    if number % 100 != 98:
        (path / "record.json").write_text(json.dumps(record(original, axes, number), indent=2))
    return cell


def record(original: Path, axes: dict[str, Any], number: int) -> dict[str, Any]:
    """The original's record with other settings and scores; every 50th has failed."""
    changed: dict[str, Any] = json.loads((original / "record.json").read_text())
    for key, value in axes.items():
        *nodes, name = ["config", *key.split(".")]
        node = changed
        for each in nodes:
            node = node[each]
        node[name] = value
    for split in ("validation", "test"):
        for scores in changed["metrics"][split].values():
            scores["loss"] += number / 1e4
    if number % 50 == 0:
        changed |= {"status": "failed", "error": "Traceback\nRuntimeError: out of luck\n", "metrics": None}
    return changed


def forget(store: Path) -> int:
    """Writes every file to disk and asks the kernel to drop its pages; returns the total bytes."""
    total = 0
    os.sync()
    for path in store.rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            total += os.fstat(handle).st_size
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)
    return total


def timed(what: str, work: Callable[[], Any], *, goal: float | None = None) -> Any:
    """Calls `work`, prints its seconds and returns its result."""
    start = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - start
    print(f"{what:<32}{seconds:6.2f} s" + (f"   (goal: under {goal:g} s)" if goal else ""))
    return result


if __name__ == "__main__":
    main()
