"""Progress of a sweep: a live table on a terminal, one line per ended run elsewhere."""

import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TextIO

from loralab.sweeps.live_runs import LiveRuns, Running, last_line
from loralab.sweeps.scheduler import Job, Outcome
from loralab.text import align, clock, count, shown

if TYPE_CHECKING:
    from rich.console import Group

__all__ = ["SweepProgress"]


class SweepProgress(LiveRuns):
    """The display of a sweep. before: runs by status that were done before; jobs: those to train."""

    def __init__(
        self,
        jobs: Sequence[Job],
        slots: int,
        before: Counter[str],
        err: TextIO | None = None,
        out: TextIO | None = None,
    ) -> None:
        super().__init__(err or sys.stderr, out or sys.stdout)
        self.jobs, self.slots, self.before = jobs, slots, before
        self.counts = Counter(self.before)
        self.total = len(self.jobs) + sum(self.before.values())
        self.left_over = {job.key: job for job in self.jobs}
        self.expected = self.taken = 0.0  # seconds of the runs that ended here: as estimated, and as they were
        self.entered = time.monotonic()

    def __enter__(self) -> "SweepProgress":
        known = ", ".join(f"{n} {status}" for status, n in sorted(self.before.items()))
        lines = [f"{count(self.total, 'run')}" + (f", done before: {known}" if known else "")]
        if self.jobs:
            lines.append(f"{len(self.jobs)} to train, {self.slots} at a time{self._time_left(', about {}')}")
        print("; ".join(lines), file=self.err, flush=True)
        if self.jobs:
            self.show(self._drawn)
        return self

    def __exit__(self, *_: object) -> None:
        self.hide()

    def left(self, slot: int) -> None:
        """The worker has ended the run, whatever its outcome."""
        run, taken = self.running[slot], self._taken(self.running[slot])
        super().left(slot)
        if run.step >= run.steps > 0:
            self.expected += run.job.seconds
            self.taken += taken

    def ended(self, job: Job, outcome: Outcome) -> None:
        """A run has its outcome."""
        self.left_over.pop(job.key)
        self.counts[outcome.status] += 1
        done = sum(self.counts.values())
        status = f"{outcome.status} (elsewhere)" if outcome.elsewhere else outcome.status
        left = "" if self.live is not None or self.halted else self._time_left("  {} left")
        line = (
            f"[{done:>{len(str(self.total))}}/{self.total}] {status:<8}  {job.title}  {last_line(outcome.text)}{left}"
        )
        self.say(shown(line.rstrip()), self.out)

    def conclude(self, titles: Mapping[str, str], outcomes: Mapping[str, Outcome]) -> None:
        """After the last run: the number of runs by status, and a table of those that did not succeed."""
        tally = Counter(outcome.status for outcome in outcomes.values())
        order = ("success", "paused", "diverged", "failed", "stopped")
        taken = f" in {clock(time.monotonic() - self.entered)}" if self.jobs else ""
        print(
            f"{count(len(outcomes), 'run')}: {', '.join(f'{tally[s]} {s}' for s in order if tally[s])}{taken}",
            file=self.out,
        )
        wrong = [(key, outcome) for key, outcome in outcomes.items() if outcome.status in ("failed", "diverged")]
        if wrong:
            rows = [
                (key.rpartition("-")[2], outcome.status, titles[key], last_line(outcome.text)) for key, outcome in wrong
            ]
            print(
                "\n".join(["", *align([("run", "status", "settings", "what happened"), *rows], text=4)]), file=self.out
            )
        if tally["failed"]:
            print("\n`loralab show RUN` has it whole; the same command tries the failed ones again", file=self.out)
        elif tally["stopped"]:
            print("the same command goes on from here", file=self.out)
        elif tally["paused"]:
            print("the same command without train.pause_at trains the paused ones on", file=self.out)
        self.out.flush()

    def outlook(self) -> str:
        """`about 3 min left`; empty where no past run gives an estimate."""
        return self.halted or self._time_left("about {} left")

    def _time_left(self, template: str) -> str:
        """The template with the time until the sweep ends; empty where no past run gives an estimate."""
        known = self.expected > 0 or all(job.known for job in list(self.left_over.values()))
        return template.format(clock(self._left())) if known and self.left_over else ""

    def _left(self) -> float:
        """Seconds until the sweep ends: the expected durations, corrected by how long this sweep's runs really took."""
        pace = self.taken / self.expected if self.expected > 0 else 1.0
        gone = sum(min(self._taken(r), pace * r.job.seconds) for r in list(self.running.values()))
        whole = pace * sum(job.seconds for job in list(self.left_over.values()))
        longest = max((job.seconds for job in list(self.left_over.values())), default=0.0)
        return max((whole - gone) / self.slots, 0.0 if self.running else pace * longest)

    def _taken(self, run: Running) -> float:
        """Seconds that a run has taken of its slot, which it may share with others of a pack."""
        return (time.monotonic() - run.began) / max(1.0, len(self.running) / self.slots)

    def _drawn(self) -> "Group":
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        done = sum(self.counts.values())
        parts = [
            f"{done}/{self.total} done",
            *(f"{n} {s}" for s, n in sorted(self.counts.items()) if s != "success"),
        ]
        head = Table.grid(padding=(0, 2))
        parts.append(f"{len(self.running)} running")
        head.add_row(ProgressBar(self.total, done, width=30), ", ".join(parts), self.outlook())
        return Group(head, self.rows())
