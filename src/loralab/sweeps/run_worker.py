"""The worker's side of a sweep: it runs Hydra jobs, and its console reports their progress to the parent.

A list of jobs is a pack of runs, which train together (loralab.runs.pack).
"""

import contextlib
import gc
import importlib
import inspect
import io
import logging
import operator
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.utils import JobRuntime, JobStatus, run_job, setup_globals
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from loralab.compat.hydra import outcome
from loralab.config.explain import explain
from loralab.config.schema import Config, from_hydra
from loralab.imports import without_collection
from loralab.runs.console import Console, report_to
from loralab.store.mirror import Place
from loralab.store.record import PausedRecord, PretrainingRecord, Record
from loralab.store.run_lock import LostRunError
from loralab.sweeps.worker import Ended
from loralab.training.signals import Interrupted

__all__ = ["Reporter", "Result", "Shared", "prepare"]

# Least seconds between two messages about steps: often enough for a live table, and without a measurable cost.
SAY_SECONDS = 0.25
# Seconds that may pass before the first step: a download, or tokenising a large task.
LOADING_SECONDS = 4 * 3600.0


@dataclass(frozen=True)
class Shared:
    """What all jobs of a sweep share: Hydra's context and job name, and where the task function is."""

    context: HydraContext
    job_name: str
    module: str
    function: str


@dataclass(frozen=True)
class Result:
    """How a job ended in its worker: done (value: what the task function returned), failed (why), stopped, or lost.

    lost: the run's directory was removed while it trained, and nothing may be written there.
    """

    status: str
    value: Any = None
    error: str = ""


class Reporter(Console):
    """Sends a run's progress: {"step", "steps", "values", "warning", "mirrored"}, or {} to show that it is alive."""

    def __init__(self, send: Callable[..., None]) -> None:
        super().__init__(io.StringIO(), io.StringIO(), title="")
        self.send = send
        self.sent = 0.0

    def loading(self, model: str, task: str) -> None:
        self.send({}, silence=LOADING_SECONDS)

    def started(self, name: str, steps: int, groups: Sequence[dict[str, Any]], *, resumed_at: int) -> None:
        self.steps = steps
        self.send({"step": resumed_at, "steps": steps})

    def mirrored(self, where: Place) -> None:
        self.send({"mirrored": where.every})

    def step(self, step: int) -> None:
        self._send_sometimes({"step": step}, at_once=step == self.steps)

    def alive(self) -> None:
        self._send_sometimes({})

    def line(self, line: dict[str, Any]) -> None:
        values = "  ".join(f"{name} {value:.4g}" for name, value in line["values"].items() if value is not None)
        self._send_sometimes({"values": f"{line['split']} {values}"})

    def interrupted(self, step: int, steps: int) -> None:
        self.send({"step": step})

    def already_done(self, record: Record | PausedRecord | PretrainingRecord, path: Path) -> None:
        self.send({})

    def finished(self, record: Record | PausedRecord | PretrainingRecord, path: Path) -> None:
        # for the sweep's pace, these are all steps that it was to take
        at = record["steps"]
        self.send({"step": at, "steps": at} if record["status"] == "paused" else {})

    def _send_sometimes(self, message: dict[str, Any], *, at_once: bool = False) -> None:
        if at_once or time.monotonic() - self.sent >= SAY_SECONDS:
            self.sent = time.monotonic()
            self.send(message)


@contextlib.contextmanager
def _warnings(send: Callable[..., None]) -> Iterator[None]:
    """Inside, sends what loralab logs as a warning, such as that a tracker failed: nobody reads a worker's output."""

    class Sent(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            send({"warning": record.getMessage()})

    handler, ours = Sent(logging.WARNING), logging.getLogger("loralab")
    ours.addHandler(handler)
    try:
        yield
    finally:
        ours.removeHandler(handler)


def _remove_folder(job: DictConfig) -> None:
    """Removes Hydra's folder of the job, unless another launcher or a callback has written there."""
    with contextlib.suppress(OSError):
        Path(job.hydra.runtime.output_dir).rmdir()


def _config(job: DictConfig) -> Config:
    return from_hydra(OmegaConf.masked_copy(job, [str(key) for key in job if key != "hydra"]))


def _failed(error: BaseException) -> Result:
    """Of a job that ended with this error."""
    if isinstance(error, LostRunError):
        return Result("lost", error=str(error))
    return Result("failed", error=explain(error) or "".join(traceback.format_exception(error)))


def _result(ending: Any) -> Result:
    """Of a run of a pack."""
    if isinstance(ending, Interrupted):
        return Result("stopped")
    return _failed(ending) if isinstance(ending, BaseException) else Result("done")


def prepare(shared: Shared, send: Callable[..., None]) -> Callable[[Any], Any]:
    """Imports what runs need (torch and transformers take seconds); returns the function that runs a job.

    It gives the Result of a job (a DictConfig), and sends that of each job of a pack (a list of them).
    """
    setup_globals()
    JobRuntime.instance().set("name", shared.job_name)
    found = operator.attrgetter(shared.function)(importlib.import_module(shared.module))
    task_function = inspect.unwrap(found)  # a @hydra.main would parse the command line again
    with without_collection():
        from loralab.runs.pack import Ending, run_pack

    tidied = False

    def tidy() -> None:
        nonlocal tidied
        gc.collect()  # models have reference cycles, and errors hold them: else two would be in memory
        if not tidied:  # the modules of the first run stay; scanning them takes .3 s per run
            gc.freeze()
            tidied = True

    def ended(config: DictConfig) -> Result:
        with report_to(Reporter(send)), _warnings(send):
            try:
                job = run_job(task_function, config, "hydra.sweep.dir", "hydra.sweep.subdir", shared.context)
            except Interrupted:
                return Result("stopped")
        _remove_folder(config)
        if job.status == JobStatus.COMPLETED:
            return Result("done", job.return_value)
        return _failed(outcome(job))

    def packed(configs: list[DictConfig]) -> None:
        left = [*range(len(configs))]

        def about(i: int, content: Any, silence: float | None = None) -> None:
            send((i, content), silence=silence)

        def warn(content: Any) -> None:
            for first in left[:1]:
                about(first, content)

        def end(i: int, ending: Ending) -> None:
            left.remove(i)
            about(i, Ended(_result(ending)))

        def together(_: DictConfig) -> None:
            consoles = [Reporter(partial(about, i)) for i in range(len(configs))]
            run_pack([*map(_config, configs)], consoles, ended=end)

        with _warnings(warn):
            job = run_job(together, configs[0], "hydra.sweep.dir", "hydra.sweep.subdir", shared.context)
        _remove_folder(configs[0])
        assert job.return_value is None  # raises what no run is the cause of

    def work(job: DictConfig | list[DictConfig]) -> Result | None:
        try:
            if not isinstance(job, list):
                return ended(job)
            packed(job)
            return None
        finally:
            tidy()

    return work
