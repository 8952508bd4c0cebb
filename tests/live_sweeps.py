"""A sweep for tests of what watches it: its folder and its runs' files are written by the project's own code, fast."""

import io
import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loralab.store.metrics_file import MetricsFile
from loralab.store.run_directory import RunDirectory
from loralab.sweeps.live_folder import About, LiveFolder
from loralab.sweeps.progress import SweepProgress
from loralab.sweeps.scheduler import Job, Outcome
from tests.store.records import record

STEPS = 10


def key(number: int) -> str:
    """The name of a run."""
    return f"tiny-x-{number:010d}"


def log(run: Path, step: int, split: str = "train", seconds: float | None = None, **values: float | None) -> None:
    """Appends a line to the run's metrics.jsonl; by default it has taken half a second a step."""
    file = MetricsFile(run, size=(run / "metrics.jsonl").stat().st_size if (run / "metrics.jsonl").exists() else 0)
    file.append({"step": step, "split": split, "values": values, "seconds": step / 2 if seconds is None else seconds})
    file.close()


class LiveSweep:
    """Its jobs differ in `settings`; two are at work at once, and each is known to take a minute. keys: of the runs."""

    def __init__(
        self, store: Path, settings: Sequence[dict[str, str]], *, name: str = "sweep-0123456789",
        keys: Sequence[str] = (), **about: Any,
    ) -> None:  # fmt: skip
        self.store = store
        self.folder = LiveFolder(
            store, About(**{"id": name, "kind": "sweep", "title": "sweep", "command": "", **about})
        )
        self.jobs = [Job(each, "", 60.0, True) for each in keys or [key(i) for i in range(len(settings))]]
        self.progress = SweepProgress(self.jobs, 2, Counter(), io.StringIO(), io.StringIO())
        runs = {job.key: {"model": "tiny", **own} for job, own in zip(self.jobs, settings, strict=True)}
        self.folder.launched(runs, to_train=list(runs), slots=2, at=time.time())
        self.observer = self.folder.follow(self.progress)

    def run(self, number: int) -> RunDirectory:
        """The run of a job."""
        return RunDirectory(self.store / "runs" / self.jobs[number].key)

    def begins(self, number: int) -> None:
        """A worker, which has its number, starts the job."""
        self.run(number).begin("model: {name: tiny}\n")
        self.observer.began(number, self.jobs[number])
        self.observer.message(number, {"step": 0, "steps": STEPS})

    def comes_to(self, number: int, step: int, **values: float | None) -> None:
        """It logs a step, and is validated if there are values."""
        log(self.run(number).path, step, loss=1 / step)
        if values:
            log(self.run(number).path, step, "validation", **values)
        self.observer.message(number, {"step": step})

    def ends(self, number: int, status: str = "success", **changes: Any) -> None:
        """It writes its record."""
        ended: dict[str, Any] = {"ended": time.time(), "steps": STEPS}
        self.run(number).finish(json.loads(json.dumps(record(status, **{**ended, **changes}))))
        self.observer.left(number)
        self.observer.ended(self.jobs[number], Outcome(status))

    def dies(self) -> None:
        """Its process is killed: the lock goes, and nothing more is written."""
        assert self.folder.handle is not None
        os.close(self.folder.handle)
        self.folder.handle = None
