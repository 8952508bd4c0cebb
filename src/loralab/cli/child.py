"""A child process that trains, for commands which wait for it."""

import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType

__all__ = ["exit_status"]


def exit_status(command: Sequence[str]) -> int:
    """The exit status of a child, whose runs write their checkpoints after a signal before this process ends.

    SIGTERM is passed on; SIGINT too, unless there is a terminal, which sends Ctrl-C to both.
    """
    child: subprocess.Popen[bytes] | None = None

    def passed_on(number: int, _: FrameType | None) -> None:
        if child is not None and not (number == signal.SIGINT and sys.stdin is not None and sys.stdin.isatty()):
            child.send_signal(number)

    before = {number: signal.signal(number, passed_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        child = subprocess.Popen(command)
        ended = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return ended if ended >= 0 else 128 - ended
