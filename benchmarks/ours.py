"""`python train.py` as a process: its times from metrics.jsonl, its memory measured from outside."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

__all__ = ["environment", "finish", "first_step", "growth", "start", "window_seconds"]

ROOT = Path(__file__).resolve().parents[1]
POLL = 0.005  # seconds between two reads of metrics.jsonl


def start(environment: dict[str, str], store: Path, *overrides: str) -> subprocess.Popen[str]:
    """Starts the default run (MiniLM, rotten_tomatoes, LoRA+, r = alpha = 8 on q and v) without a tracker."""
    command = [sys.executable, str(ROOT / "train.py"), "tracker=none", f"store={store}", *overrides]
    return subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=ROOT
    )


def finish(process: subprocess.Popen[str], *, status: int = 0) -> None:
    """Waits for the process; raises RuntimeError with its standard error unless it exits with `status`."""
    _, said = process.communicate()
    if process.returncode != status:
        raise RuntimeError(f"exit status {process.returncode} of {process.args!r}\n{said}")


def window_seconds(store: Path, seed: int, first: int, last: int) -> float:
    """Seconds from the end of step `first` to the end of step `last` of the run with this seed."""
    (path,) = (store / "runs").glob(f"*-s{seed}-*/metrics.jsonl")
    ends = {line["step"]: line["seconds"] for line in _lines(path) if line["split"] == "train"}
    return float(ends[last] - ends[first])


def first_step(environment: dict[str, str], store: Path, seed: int) -> float:
    """Seconds from the start of the command to the end of its first optimizer step; the run is then interrupted."""
    began = time.monotonic()
    process = start(environment, store, f"seed={seed}", "train.log_every=1")
    for _ in _until(process, store, seed, step=1):
        pass
    seconds = time.monotonic() - began
    process.send_signal(signal.SIGTERM)
    finish(process, status=128 + signal.SIGTERM)
    return seconds


def growth(environment: dict[str, str], store: Path, seed: int, *, early: int, late: int, epoch: int) -> dict[str, Any]:
    """{early, late: {ms_per_step, rss_mb}} at two steps of one run; the times are those of the epoch that ends there.

    Whole epochs, because batches differ in length: both windows then hold the same examples.
    """
    rows = f"task.train_rows={epoch * 32}"
    process = start(environment, store, f"seed={seed}", rows, f"train.steps={late}", "train.epochs=null",
                    "train.eval_every=1000000")  # fmt: skip
    watched = psutil.Process(process.pid)
    memory = {}
    for step in (early, late):
        for _ in _until(process, store, seed, step=step):
            pass
        memory[step] = watched.memory_info().rss / 2**20
    finish(process)
    return {
        str(step): {
            "ms_per_step": 1e3 * window_seconds(store, seed, step - epoch, step) / epoch,
            "rss_mb": memory[step],
        }
        for step in (early, late)
    }


def _until(process: subprocess.Popen[str], store: Path, seed: int, *, step: int) -> Iterator[None]:
    """Yields repeatedly until metrics.jsonl has the training line of `step`."""
    while process.poll() is None:
        for path in (store / "runs").glob(f"*-s{seed}-*/metrics.jsonl"):
            if any(line["step"] >= step and line["split"] == "train" for line in _lines(path)):
                return
        time.sleep(POLL)
        yield
    finish(process)
    raise RuntimeError(f"the run ended before step {step}")


def _lines(path: Path) -> list[dict[str, Any]]:
    whole, _, _ = path.read_text().rpartition("\n")  # without an incomplete last line
    return [json.loads(line) for line in whole.splitlines()]


def environment(threads: int) -> dict[str, str]:
    """This process's environment with `threads` for OpenMP; the same for both sides."""
    settings = {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",  # as train.py sets it; for the peer too
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    return {**os.environ, **settings}
