"""The worker's side of a sweep of runs: it does Hydra jobs, and its console tells the parent how they go."""

import gc
import importlib
import inspect
import io
import operator
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.utils import JobRuntime, JobStatus, run_job, setup_globals
from hydra.types import HydraContext
from omegaconf import DictConfig

from loralab.compat.hydra import outcome
from loralab.config.explain import explain
from loralab.imports import without_collection
from loralab.runs.console import Console, report_to
from loralab.training.signals import Interrupted

__all__ = ["Reporter", "Result", "Shared", "prepare"]

# Least seconds between two messages about steps: enough for a live table, and few enough to cost nothing.
SAY_SECONDS = 0.25
# What comes before the first step may take this long without a word: a download, the first tokenising of a large task.
LOADING_SECONDS = 4 * 3600.0


@dataclass(frozen=True)
class Shared:
    """What every job of a sweep needs: Hydra's context, its name for the jobs, and where the task function is."""

    context: HydraContext
    job_name: str
    module: str
    function: str


@dataclass(frozen=True)
class Result:
    """How a job ended in its worker: done (value: what the task function gave), failed (why), or stopped."""

    status: str
    value: Any = None
    error: str = ""


class Reporter(Console):
    """Tells a function about the run: {"step", "steps", "values"}, or {} as a sign of life."""

    def __init__(self, tell: Callable[..., None]) -> None:
        super().__init__(io.StringIO(), io.StringIO(), title="")
        self.tell = tell
        self.said = 0.0

    def loading(self, model: str, task: str) -> None:
        self.tell({}, silence=LOADING_SECONDS)

    def started(self, name: str, steps: int, groups: Sequence[dict[str, Any]], *, resumed_at: int) -> None:
        self.steps = steps
        self.tell({"step": resumed_at, "steps": steps})

    def step(self, step: int) -> None:
        self._say_now_and_then({"step": step}, at_once=step == self.steps)

    def alive(self) -> None:
        self._say_now_and_then({})

    def line(self, line: dict[str, Any]) -> None:
        values = "  ".join(f"{name} {value:.4g}" for name, value in line["values"].items() if value is not None)
        self._say_now_and_then({"values": f"{line['split']} {values}"})

    def interrupted(self, step: int, steps: int) -> None:
        self.tell({"step": step})

    def already_done(self, record: dict[str, Any], path: Path) -> None:
        self.tell({})

    def finished(self, record: dict[str, Any], path: Path) -> None:
        self.tell({})

    def _say_now_and_then(self, message: dict[str, Any], *, at_once: bool = False) -> None:
        if at_once or time.monotonic() - self.said >= SAY_SECONDS:
            self.said = time.monotonic()
            self.tell(message)


def prepare(shared: Shared, tell: Callable[..., None]) -> Callable[[DictConfig], Result]:
    """Gets this process ready for runs (torch and transformers take seconds to import); gives what does a job."""
    setup_globals()
    JobRuntime.instance().set("name", shared.job_name)
    found = operator.attrgetter(shared.function)(importlib.import_module(shared.module))
    task_function = inspect.unwrap(found)  # a @hydra.main would parse the command line again
    with without_collection():
        import loralab.runs.run

    assert loralab.runs.run

    tidied = False

    def tidy() -> None:
        nonlocal tidied
        gc.collect()  # a model is full of cycles, and an error holds it too: the next one would be loaded beside it
        if not tidied:  # what the first run leaves is modules, and to walk these again takes .3 s a run
            gc.freeze()
            tidied = True

    def ended(config: DictConfig) -> Result:
        with report_to(Reporter(tell)):
            try:
                job = run_job(task_function, config, "hydra.sweep.dir", "hydra.sweep.subdir", shared.context)
            except Interrupted:
                return Result("stopped")
        if job.status == JobStatus.COMPLETED:
            return Result("done", job.return_value)
        error = outcome(job)
        return Result("failed", error=explain(error) or "".join(traceback.format_exception(error)))

    def work(config: DictConfig) -> Result:
        try:
            return ended(config)
        finally:
            tidy()

    return work
