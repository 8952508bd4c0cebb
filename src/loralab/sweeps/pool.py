"""Warm worker processes, one per slot, each with one job at a time; one that dies or hangs is replaced.

Independent of runs: a job is whatever the workers' function takes.
"""

import contextlib
import math
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, cast

from loralab.sweeps.pool_folder import PoolFolder, remove_dead_folders
from loralab.sweeps.worker import Prepare, serve

__all__ = ["Event", "Pool", "Worker"]

# The pool gives up after this many workers in a row that died before they were ready.
FUTILE_STARTS = 3
# Seconds that busy workers have to write their checkpoints if the parent ends with an error.
CLOSE_SECONDS = 30.0
# Seconds that a hung worker has to write its stack, before it is killed.
LAST_WORDS = 1.0
START_SECONDS = 300  # after which a worker that is still importing counts as hung
OUTPUT_LINES = 30  # of what a dead worker printed last, kept in the reason


@dataclass(frozen=True)
class Event:
    """What happened in a worker: `message`, `done` (content: the result), `raised` (a traceback) or `died` (why).

    job: the key of the job that it concerns.
    """

    kind: str
    slot: int
    job: str
    content: Any


@dataclass
class Worker:
    """The process of one slot. `job` is the key of its current job."""

    slot: int
    process: multiprocessing.process.BaseProcess
    connection: Connection
    output: Path
    ready: bool = False
    job: str | None = None
    heard: float = field(default_factory=time.monotonic)  # when its last message came
    silence: float | None = None  # seconds that may pass without a message, where it has said so
    hung: bool = False


class Pool:
    """At most one worker for each of `slots`, started when first needed.

    slots: what each adds to its worker's environment; prepare: an importable function that a worker calls once, with
    `shared`, to get the function that does its jobs; timeout: seconds without a message after which a busy worker
    is killed, None: never.
    """

    def __init__(
        self, slots: Sequence[Mapping[str, str]], prepare: Prepare, shared: Any, *, timeout: float | None
    ) -> None:
        self.slots, self.prepare, self.shared, self.timeout = slots, prepare, shared, timeout
        self.workers: dict[int, Worker] = {}
        self.futile = 0
        self.stopping = False
        remove_dead_folders()
        self.place = PoolFolder()
        self.folder = self.place.path

    def start(self, count: int) -> None:
        """Starts workers until `count` of them, or one per slot, are running or starting."""
        for slot, environment in enumerate(self.slots):
            if len(self.workers) >= count:
                return
            if slot not in self.workers:
                self.workers[slot] = self._started(slot, environment)

    def idle(self) -> list[Worker]:
        """Workers that wait for a job."""
        return [worker for worker in self.workers.values() if worker.ready and worker.job is None]

    def busy(self) -> list[Worker]:
        """Workers with a job."""
        return [worker for worker in self.workers.values() if worker.job is not None]

    def give(self, worker: Worker, key: str, job: Any) -> None:
        """Sends a job to an idle worker; if the worker has died, `events` reports it."""
        worker.job, worker.heard, worker.silence = key, time.monotonic(), None
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            worker.connection.send(job)

    def events(self, seconds: float) -> Iterator[Event]:
        """The next events; returns after `seconds` if there are none. The slot of a dead worker is free again.

        Raises RuntimeError, with their output, if FUTILE_STARTS workers in a row die before they are ready.
        """
        there = list(self.workers.values())
        connections = {worker.connection: worker for worker in there}
        sentinels = {
            worker.process.sentinel: worker for worker in there
        }  # a child process of the worker may hold the connection
        for ended in wait([*connections, *sentinels], seconds):
            if isinstance(ended, Connection):
                yield from self._received(connections[ended])
            else:
                yield from self._dead(sentinels[cast(int, ended)])
        for worker in list(self.workers.values()):
            if worker.process.exitcode is not None:  # a forked child of the worker holds both of its pipes
                yield from self._dead(worker)
            elif self._is_hung(worker):
                self._kill_hung(worker)
                yield from self._received(worker)

    def signal(self, number: int) -> None:
        """Sends a signal to the busy workers; the others have no handler and would die."""
        self.stopping = True
        for worker in self.busy():
            with contextlib.suppress(ProcessLookupError):
                os.kill(_pid(worker), number)

    def close(self) -> None:
        """Ends the workers: idle ones at once, busy ones by SIGTERM, or by SIGKILL if they had SIGTERM before."""
        if not self.stopping:
            self.signal(signal.SIGTERM)
            end = time.monotonic() + CLOSE_SECONDS
            for worker in self.busy():
                while worker.process.is_alive() and time.monotonic() < end and not self._finished(worker):
                    worker.process.join(0.05)
        for worker in self.workers.values():
            worker.connection.close()
            if worker.job is not None or not worker.ready:
                worker.process.kill()
        for worker in self.workers.values():
            worker.process.join(10)
            if worker.process.exitcode is None:
                worker.process.kill()
                worker.process.join()
        self.workers.clear()
        self.place.remove()

    def _started(self, slot: int, environment: Mapping[str, str]) -> Worker:
        context = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads, and CUDA not at all
        ours, theirs = context.Pipe()
        output = self.place.there() / f"worker-{slot}"
        arguments = (theirs, output, self.prepare, self.shared)
        process = context.Process(target=serve, args=arguments, name=f"worker {slot}", daemon=True)
        # Ctrl-C in a terminal reaches the child until it has called setsid; starting the tracker, of which
        # multiprocessing needs one, unblocks SIGINT, so it comes first
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with _environment(environment):
                process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        return Worker(slot, process, ours, output)

    def _received(self, worker: Worker) -> Iterator[Event]:
        """Every message that has arrived, and the worker's death after them."""
        while True:
            try:
                if not worker.connection.poll():
                    return
                kind, content, silence = worker.connection.recv()
            except (EOFError, OSError):
                yield from self._dead(worker)
                return
            worker.heard, worker.silence = time.monotonic(), silence
            if kind == "ready":
                worker.ready, self.futile = True, 0
                continue
            job = worker.job
            assert job is not None, "a worker sends messages about its current job only"
            if kind != "message":
                worker.job = None
            yield Event(kind, worker.slot, job, content)

    def _finished(self, worker: Worker) -> bool:
        """Whether a worker that has been sent a stop signal is done; its messages are read and dropped."""
        with contextlib.suppress(EOFError, OSError):
            while worker.connection.poll():
                if worker.connection.recv()[0] != "message":
                    return True
        return False

    def _dead(self, worker: Worker) -> Iterator[Event]:
        """The last messages of a dead worker, and its death; once."""
        if self.workers.get(worker.slot) is not worker:
            return
        with contextlib.suppress(EOFError, OSError):
            while worker.connection.poll():
                kind, content, _ = worker.connection.recv()
                if kind in ("done", "raised") and worker.job is not None:
                    key, worker.job = worker.job, None
                    yield Event(kind, worker.slot, key, content)
        yield from self._buried(worker)

    def _buried(self, worker: Worker) -> Iterator[Event]:
        worker.process.join(10)
        worker.process.kill()  # where it closed its connection, and lives
        worker.process.join()
        worker.connection.close()
        del self.workers[worker.slot]
        reason = "\n".join(filter(None, (self._last_words(worker), self._cause(worker))))
        if worker.job is not None:
            yield Event("died", worker.slot, worker.job, reason)
        elif not worker.ready:
            self.futile += 1
            if self.futile >= FUTILE_STARTS:
                raise RuntimeError(f"worker processes end before they are ready:\n{reason}")

    def _cause(self, worker: Worker) -> str:
        code = worker.process.exitcode
        assert code is not None
        if worker.hung:
            return f"it hung: no sign of life for {self._patience(worker):g} s, so its process was killed"
        if code == -signal.SIGKILL:
            return "its process was killed (SIGKILL): by hand, or by the system for want of memory"
        return (
            f"its process died of {signal.Signals(-code).name}"
            if code < 0
            else f"its process ended with exit status {code}"
        )

    def _last_words(self, worker: Worker) -> str:
        lines = []
        with contextlib.suppress(OSError):  # a cleaner of temporary files may have removed it
            lines = worker.output.read_text(errors="replace").splitlines()
        return "\n".join(lines[-OUTPUT_LINES:])

    def _is_hung(self, worker: Worker) -> bool:
        if (worker.ready and worker.job is None) or worker.connection.poll():
            return False  # it is idle, or a message waits to be read
        return time.monotonic() - worker.heard > self._patience(worker)

    def _patience(self, worker: Worker) -> float:
        if not worker.ready:
            return START_SECONDS
        return math.inf if self.timeout is None else max(self.timeout, worker.silence or 0.0)

    def _kill_hung(self, worker: Worker) -> None:
        worker.hung = True
        with contextlib.suppress(ProcessLookupError):
            os.kill(_pid(worker), signal.SIGUSR1)  # it writes its stack
        worker.process.join(LAST_WORDS)
        worker.process.kill()
        worker.process.join()


def _pid(worker: Worker) -> int:
    assert worker.process.pid is not None
    return worker.process.pid


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """This process's environment with `values` added; a process that is started here inherits them."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
