"""Signals set a flag, which a run checks where it can stop: between two steps or two batches."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from loralab.compat.submitit import handles

__all__ = ["Interrupted", "Interrupts"]

STOP = (signal.SIGINT, signal.SIGTERM)
# By which submitit learns that its time or machine is taken away; it then requeues the job.
REQUEUE = tuple(getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name))


class Interrupted(BaseException):
    """The run was asked to stop; `status` is the process's exit status by convention, 128 + the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number, self.status = number, 128 + number


class Interrupts:
    """Inside, the first SIGINT or SIGTERM is noted; a second one has its usual effect.

    In a job of submitit SIGUSR2 is noted, and passed on once the run has stopped. SIGTERM is left to submitit, which
    ignores it: SLURM requeues a preempted job only if it still runs at the end of its grace time. Outside the main
    thread, where Python accepts no handlers, nothing is noted.
    """

    def __init__(self) -> None:
        self.noted: int | None = None
        self.before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            noted = [n for n in STOP if not handles(n)] + [n for n in REQUEUE if handles(n)]
            self.before = {number: signal.signal(number, self._note) for number in noted}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        requeue = None
        if isinstance(error, Interrupted) and error.number in REQUEUE:
            requeue = self.before.pop(error.number, None)
        for number, handler in self.before.items():
            signal.signal(number, handler)
        if requeue is not None:
            requeue(self.noted, None)  # a further signal is noted, since submitit handles only one

    def check(self) -> None:
        """Raises Interrupted once a signal was noted."""
        if self.noted is not None:
            raise Interrupted(self.noted)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.noted = number
        if number in STOP:
            signal.signal(number, self.before[number])
