"""SIGINT and SIGTERM become a flag that a run looks at where it can stop: between two steps, or two batches."""

import signal
import threading
from types import FrameType, TracebackType

__all__ = ["Interrupted", "Interrupts"]


class Interrupted(BaseException):
    """The run was asked to stop; `status` is the process's exit status by convention, 128 + the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


class Interrupts:
    """Within this context the first signal is noted, and a second one of the same kind acts as it always did.

    Outside the main thread, where Python takes no handlers, it notes nothing.
    """

    def __init__(self) -> None:
        self.noted: int | None = None
        self.before: dict[int, object] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # typeshed cannot tell that what signal.signal gave back is what it takes
        for number, handler in self.before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def check(self) -> None:
        """Raises Interrupted once a signal was noted."""
        if self.noted is not None:
            raise Interrupted(self.noted)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.noted = number
        signal.signal(number, self.before[number])  # type: ignore[arg-type]
