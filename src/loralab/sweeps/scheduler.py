"""Runs the jobs of a sweep on a pool, longest first, until each has an outcome; a dead worker costs one retry.

A worker may get a pack: several jobs at once, which it works on together.
"""

import math
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Protocol

from loralab.sweeps.pool import Event, Pool, Worker
from loralab.sweeps.worker import Ended

__all__ = ["Job", "JobSource", "Observer", "Outcome", "Scheduler"]

# Seconds between two checks for an interrupt, and for runs that another process holds.
TICK = 0.2
HELD_SECONDS = 1.0  # between two checks of the same held runs
# Seconds that an interrupted run has to write its checkpoint.
STOP_SECONDS = 90.0
RETRIES = 1


@dataclass(frozen=True)
class Job:
    """One run: its key, its title (the settings that differ between runs), and its expected duration in seconds.

    known: whether `seconds` is estimated from past runs; else it only orders the runs.
    """

    key: str
    title: str
    seconds: float
    known: bool


@dataclass(frozen=True)
class Outcome:
    """How a job ended: success, diverged, paused (as its job says), failed, or stopped (interrupted, or never begun).

    value: what its launcher returns; text: its scores, or why it failed; elsewhere: another sweep trained it.
    """

    status: str
    value: Any = None
    text: str = ""
    elsewhere: bool = False


class JobSource(Protocol):
    """What the scheduler needs to know about jobs, by their keys."""

    def done(self, key: str) -> Outcome | None:
        """The outcome of a finished job, also where another sweep trained it; else None."""

    def held(self, key: str) -> bool:
        """Whether another process holds it now."""

    def alike(self, key: str, others: Sequence[str]) -> list[str]:
        """Those of `others` that may be of one pack with it, the best first."""

    def payload(self, key: str) -> Any:
        """What the worker's function takes; of a pack, it takes a list of them.

        It sends a message about job i of a pack as the pair (i, content), and its end as (i, Ended(result)).
        """

    def ready(self, key: str) -> None:
        """Prepares the payload of the job that is probably next, while the workers are busy."""

    def ended(self, key: str, result: Any, started: float) -> Outcome:
        """The outcome of a job for which a worker returned `result`; `stopped` if it was interrupted."""

    def failed(self, key: str, reason: str, started: float) -> Outcome:
        """Records that a job failed, unless the run recorded it since `started` (seconds since the epoch)."""


class Observer(Protocol):
    """Observer of scheduler events."""

    def began(self, slot: int, job: Job) -> None: ...

    def message(self, slot: int, content: Any) -> None: ...

    def left(self, slot: int) -> None: ...

    def ended(self, job: Job, outcome: Outcome) -> None: ...

    def retried(self, job: Job, reason: str) -> None: ...

    def stopping(self, running: int) -> None: ...


@dataclass(frozen=True)
class _Pack:
    """What a worker works on: jobs that have not ended, by their numbers; several: whether it began with several."""

    jobs: dict[int, str]
    several: bool


class Scheduler:
    """One pass over `jobs`; `outcomes` collects what they came to.

    interrupted: whether the user has interrupted it; stop_on_error: whether the first failed job stops the others,
    which write their checkpoints; pack: the most jobs of a pack. To the observer, job i of a pack in slot s of the pool
    is in slot s + i * (number of slots).
    """

    def __init__(
        self, jobs: Sequence[Job], *, pool: Pool, source: JobSource, observer: Observer,
        interrupted: Callable[[], bool], stop_on_error: bool, pack: int = 1,
    ) -> None:  # fmt: skip
        self.jobs = {job.key: job for job in jobs}
        self.pool, self.source, self.observer = pool, source, observer
        self.interrupted, self.stop_on_error, self.pack = interrupted, stop_on_error, pack
        self.waiting = [job.key for job in sorted(jobs, key=lambda job: -job.seconds)]
        self.attempts = dict.fromkeys(self.jobs, 0)
        self.began: dict[str, float] = {}
        self.packs: dict[int, _Pack] = {}  # of each busy worker, by its slot
        self.outcomes: dict[str, Outcome] = {}
        self.looked = -HELD_SECONDS  # when held runs were last looked at
        self.stop_by: float | None = None

    def run(self) -> dict[str, Outcome]:
        """Works until every job has its outcome."""
        while self.waiting or self.pool.busy():
            if self.stop_by is None and self.interrupted():
                self._stop()
            if self.stop_by is None:
                self.pool.start(len(self.waiting) + len(self.pool.busy()))
                self._hand_out()
                if self.waiting:
                    self.source.ready(self.waiting[0])
            elif time.monotonic() > self.stop_by:
                self.pool.signal(signal.SIGKILL)
            for event in self.pool.events(TICK):
                self._handle(event)
        return self.outcomes

    def _hand_out(self) -> None:
        idle = self.pool.idle()
        if not idle or time.monotonic() - self.looked < HELD_SECONDS:
            return
        for key in list(self.waiting):
            if key not in self.waiting:  # it is in a pack by now
                continue
            if (outcome := self.source.done(key)) is not None:
                self.waiting.remove(key)
                self._end(key, replace(outcome, elsewhere=True))
                if self.stop_by is not None:  # it was a failure, and stopped the others
                    return
            elif not self.source.held(key):
                self._give(idle.pop(0), self._packed(key))
            if not idle:
                return
        if self.waiting:  # all of them are held by others
            self.looked = time.monotonic()

    def _packed(self, key: str) -> list[str]:
        """The jobs that are given out with this one, which is the first: a worker's share of those that may be.

        One that is tried again is alone, so that it costs no others a second time.
        """
        if self.pack == 1 or self.attempts[key]:
            return [key]
        alike = self.source.alike(key, [k for k in self.waiting if k != key and not self.attempts[k]])
        free_slots = len(self.pool.slots) - len(self.pool.busy())
        most = min(self.pack, math.ceil((1 + len(alike)) / free_slots))
        free = (k for k in alike if self.source.done(k) is None and not self.source.held(k))
        return sorted([key, *islice(free, most - 1)])  # the order of its locks: no two packs wait crosswise

    def _give(self, worker: Worker, keys: list[str]) -> None:
        for key in keys:
            self.waiting.remove(key)
            self.attempts[key] += 1
            self.began.setdefault(key, time.time())
        self.packs[worker.slot] = _Pack(dict(enumerate(keys)), several=len(keys) > 1)
        payloads = [self.source.payload(key) for key in keys]
        self.pool.give(worker, keys[0], payloads if len(keys) > 1 else payloads[0])
        for i, key in enumerate(keys):
            self.observer.began(self._slot(worker.slot, i), self.jobs[key])

    def _slot(self, slot: int, i: int) -> int:
        return slot + i * len(self.pool.slots)

    def _handle(self, event: Event) -> None:
        pack = self.packs[event.slot]
        if event.kind == "message":
            i, content = event.content if pack.several else (0, event.content)
            if isinstance(content, Ended):
                self.observer.left(self._slot(event.slot, i))
                self._conclude(pack.jobs.pop(i), "done", content.result, packed=True)
            elif i in pack.jobs:
                self.observer.message(self._slot(event.slot, i), content)
            return
        del self.packs[event.slot]
        assert not (pack.several and pack.jobs and event.kind == "done"), "a pack is done, and not all of its jobs"
        for i in pack.jobs:
            self.observer.left(self._slot(event.slot, i))
        for key in pack.jobs.values():
            self._conclude(key, event.kind, event.content, packed=pack.several)

    def _conclude(self, key: str, kind: str, content: Any, *, packed: bool) -> None:
        """What a worker's last event means for one of its jobs; content: the job's own."""
        if kind == "done":
            outcome = self.source.ended(key, content, self.began[key])
            if outcome.status == "stopped" and self.stop_by is None:  # by a signal to the worker, not to the sweep
                self._retry(key, "its process was asked to stop")
            else:
                self._end(key, outcome)
        elif kind == "raised" and not packed:
            self._end(key, self.source.failed(key, content, self.began[key]))
        elif (done := self.source.done(key)) is not None:  # it died with its record written
            self._end(key, done)
        elif self.stop_by is not None:
            self._end(key, Outcome("stopped"))
        else:
            self._retry(key, content)

    def _retry(self, key: str, reason: str) -> None:
        """Runs it again from its checkpoint; the second time it has failed."""
        if self.attempts[key] <= RETRIES:
            self.waiting.insert(0, key)
            self.observer.retried(self.jobs[key], reason)
        else:
            self._end(key, self.source.failed(key, reason, self.began[key]))

    def _end(self, key: str, outcome: Outcome) -> None:
        self.outcomes[key] = outcome
        self.observer.ended(self.jobs[key], outcome)
        if outcome.status == "failed" and self.stop_on_error and self.stop_by is None:
            self._stop()

    def _stop(self) -> None:
        """Starts no more jobs; those that run write their checkpoints."""
        self.stop_by = time.monotonic() + STOP_SECONDS
        for key in self.waiting:
            self.outcomes[key] = Outcome("stopped")
        self.waiting.clear()
        self.observer.stopping(len(self.pool.busy()))
        self.pool.signal(signal.SIGTERM)
