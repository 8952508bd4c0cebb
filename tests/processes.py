"""Real processes for tests: each writes to a file, none outlives its test, and none is waited for without an end."""

import contextlib
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import psutil

# Seconds that anything may take, on few cores with other work on them: a test fails after this instead of hanging.
LONGEST = 600.0


class Process(subprocess.Popen[bytes]):
    """A command in a process of its own, which writes all that it prints to a file."""

    running: ClassVar[list["Process"]] = []

    def __init__(self, command: Sequence[str], output: Path, **settings: Any) -> None:
        output.parent.mkdir(parents=True, exist_ok=True)
        self.output = output
        with output.open("wb") as stream:
            super().__init__(command, stdout=stream, stderr=subprocess.STDOUT, **settings)
        self.running.append(self)

    def text(self) -> str:
        return self.output.read_text()

    def status(self) -> int:
        """Waits for its end."""
        try:
            return self.wait(timeout=LONGEST)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end in {LONGEST:g} s; it printed:\n{self.text()}") from None

    def ends(self, status: int = 0) -> str:
        """Waits for its end, which has this exit status; gives what it printed."""
        assert self.status() == status, self.text()
        return self.text()

    def until(self, moment: Callable[[], Any]) -> Any:
        """What `moment` gives as soon as that is true; fails if the process ends before."""
        end = time.monotonic() + LONGEST
        while not (found := moment()):
            assert self.poll() is None, f"it ended before the moment came; it printed:\n{self.text()}"
            assert time.monotonic() < end, f"the moment did not come in {LONGEST:g} s; it printed:\n{self.text()}"
            time.sleep(0.001)
        return found

    def kill_tree(self) -> None:
        """SIGKILL to it and all below it at once; they are stopped first, so that none sees another die."""
        if self.poll() is not None:
            return
        tree = [psutil.Process(self.pid), *psutil.Process(self.pid).children(recursive=True)]
        for signal in (psutil.Process.suspend, psutil.Process.kill):
            for process in tree:
                with contextlib.suppress(psutil.NoSuchProcess):
                    signal(process)
        psutil.wait_procs(tree[1:], timeout=LONGEST)
        self.wait()


def end_all() -> None:
    """Leaves nothing behind of a test that failed while its processes ran."""
    while Process.running:
        Process.running.pop().kill_tree()
