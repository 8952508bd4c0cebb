"""A process that trains, for a caller in Python: its output is captured, and its progress passed on."""

import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import IO

__all__ = ["passed_on"]


def passed_on(arguments: Sequence[str], *, whole: bool = False) -> tuple[int, str, list[str]]:
    """The exit status of a process, its standard output, and the lines of its standard error, printed here too.

    whole: standard output is among those lines, rather than captured.

    An interrupt is passed on, so that its runs write their checkpoints, and raised here once the process has ended.
    """
    errors: list[str] = []
    beside = subprocess.STDOUT if whole else subprocess.PIPE
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=beside, text=True, errors="replace") as child:
        assert child.stdout is not None
        reader = threading.Thread(target=_print, args=(child.stderr or child.stdout, errors), daemon=True)
        reader.start()
        try:
            printed = "" if whole else child.stdout.read()
            status = child.wait()
        except KeyboardInterrupt:
            child.send_signal(signal.SIGINT)
            raise  # once it has ended
        finally:
            reader.join()
    return status, printed, errors


def _print(stream: IO[str], lines: list[str]) -> None:
    for line in stream:
        lines.append(line)
        print(line, end="", file=sys.stderr, flush=True)
