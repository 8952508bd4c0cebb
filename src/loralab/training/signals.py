"""Signals become a flag that a run looks at where it can stop: between two steps, or two batches."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from loralab.compat.submitit import handles

__all__ = ["Interrupted", "Interrupts"]

STOP = (signal.SIGINT, signal.SIGTERM)
# With which submitit is told that its time or its machine is taken away; it then puts the job back into the queue.
REQUEUE = tuple(getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name))


class Interrupted(BaseException):
    """The run was asked to stop; `status` is the process's exit status by convention, 128 + the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number, self.status = number, 128 + number


class Interrupts:
    """Within this context the first SIGINT or SIGTERM is noted, and a second one of the kind acts as it always did.

    In a job of submitit SIGUSR2 is noted, and passed on once the run has stopped. SIGTERM stays submitit's there, which
    ignores it: SLURM requeues a job that it preempts only where the job is still there at the end of its grace time.
    Outside the main thread, where Python takes no handlers, nothing is noted.
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
            requeue(self.noted, None)  # a further signal meanwhile is noted, for submitit bears none

    def check(self) -> None:
        """Raises Interrupted once a signal was noted."""
        if self.noted is not None:
            raise Interrupted(self.noted)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.noted = number
        if number in STOP:
            signal.signal(number, self.before[number])
