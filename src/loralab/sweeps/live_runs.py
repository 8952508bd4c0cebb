"""The runs that a pool trains now, and where their display is printed: a live table on a terminal, else plain lines."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from loralab.sweeps.scheduler import Job
from loralab.text import count, shown

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live
    from rich.table import Table

__all__ = ["LiveRuns", "Running", "last_line"]

WIDEST_TITLE = 60


@dataclass
class Running:
    """The run of one slot, and what it last reported."""

    job: Job
    began: float
    step: int = 0
    steps: int = 0
    values: str = ""


class LiveRuns:
    """Follows the runs of the slots; a display that inherits from it says what is drawn around them."""

    def __init__(self, err: TextIO, out: TextIO) -> None:
        self.err, self.out = err, out
        self.running: dict[int, Running] = {}
        self.said: set[str] = set()  # lines that are printed once for all runs
        self.halted = ""  # what is printed instead of the time left after an interrupt
        self.live: Live | None = None

    def began(self, slot: int, job: Job) -> None:
        """A worker starts a run."""
        self.running[slot] = Running(job, time.monotonic())

    def message(self, slot: int, content: dict[str, Any]) -> None:
        """A run's step, its number of steps, its latest scores, a warning, or where it is mirrored."""
        for name, value in content.items():
            if name == "warning":
                self._once(value, f"warning: {self.running[slot].job.title}: {value}")
            elif name == "mirrored":
                self._once(value, f"mirrored in {value}")
            else:
                setattr(self.running[slot], name, value)

    def _once(self, what: str, line: str) -> None:
        if what not in self.said:
            self.said.add(what)
            self.say(shown(line), self.err)

    def left(self, slot: int) -> None:
        """The worker has ended the run, whatever its outcome."""
        self.running.pop(slot)

    def retried(self, job: Job, reason: str) -> None:
        """A run's worker died; the run goes on from its checkpoint."""
        self.say(shown(f"retry: {job.title}: {last_line(reason)}"), self.err)

    def stopping(self, running: int) -> None:
        """The user interrupted."""
        self.halted = f"stopping: {count(running, 'run')} write{'s' if running == 1 else ''} a checkpoint"
        self.say(self.halted, self.err)

    def outlook(self) -> str:
        """The time left, or what there is instead of it."""
        return self.halted

    def show(self, drawn: Callable[[], "RenderableType"]) -> None:
        """Begins a live table, drawn four times a second; nothing where standard error is no terminal."""
        if self.err.isatty() and os.environ.get("TERM") != "dumb":
            from rich.console import Console
            from rich.live import Live

            screen = Console(file=self.err, highlight=False)
            self.live = Live(get_renderable=drawn, console=screen, transient=True, refresh_per_second=4)
            self.live.start()

    def hide(self) -> None:
        """Ends the live table and removes it."""
        if self.live is not None:
            self.live.stop()
            self.live = None

    def say(self, text: str, stream: TextIO) -> None:
        """Prints a line that stays, above the live table if there is one."""
        if self.live is not None:
            self.live.console.print(text, markup=False, soft_wrap=True)
        else:
            print(text, file=stream, flush=True)

    def rows(self) -> "Table":
        """A line for each slot: its run, how far it is, and its latest scores."""
        from rich.table import Table
        from rich.text import Text

        rows = Table.grid(padding=(0, 2))
        for slot, run in sorted(self.running.items()):
            at = f"step {run.step}/{run.steps}" if run.steps else "loading"
            rows.add_row(str(slot), Text(_cut(shown(run.job.title))), at, run.values)  # a text may have [brackets]
        return rows


def last_line(text: str) -> str:
    """A text's last line: of a traceback, the error itself."""
    return next((line for line in reversed(text.splitlines()) if line.strip()), "")


def _cut(text: str) -> str:
    return text if len(text) <= WIDEST_TITLE else text[: WIDEST_TITLE - 3] + "..."
