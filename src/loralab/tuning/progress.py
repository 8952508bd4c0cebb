"""Progress of a tuning session: a line for each trial that ended, and on a terminal a live table of those at work."""

import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from loralab.sweeps.live_folder import About
from loralab.sweeps.live_runs import LiveRuns
from loralab.sweeps.scheduler import Job, Outcome
from loralab.text import clock, printed, shown
from loralab.tuning.seen import Look
from loralab.tuning.trial import Trial
from loralab.tuning.tuned import rate

if TYPE_CHECKING:
    from rich.console import Group

__all__ = ["TuneProgress", "title"]


class TuneProgress(LiveRuns):
    """The display of a whole session, which launches its trials in several turns; all of it goes to standard error.

    budget: in full runs, None if there is none; spent: of it, so far; about: what `loralab watch` shows it as.
    """

    def __init__(self, heading: Sequence[str], budget: float | None, spent: Callable[[], float], about: About) -> None:
        super().__init__(sys.stderr, sys.stderr)
        self.budget, self.spent, self.about = budget, spent, about
        self.began_at = time.monotonic()
        self.number = 0
        print(printed(heading), file=self.err, flush=True)

    def __call__(self, jobs: Sequence[Job], slots: int, before: Counter[str]) -> "TuneProgress":  # noqa: ARG002
        """The display of one launch: this one."""
        return self

    def __enter__(self) -> "TuneProgress":
        self.show(self._drawn)
        return self

    def __exit__(self, *_: object) -> None:
        self.hide()

    def ended(self, job: Job, outcome: Outcome) -> None:
        """A run has its outcome; its line comes with what was seen of it."""

    def conclude(self, titles: Mapping[str, str], outcomes: Mapping[str, Outcome]) -> None:  # noqa: ARG002
        """After a launch: how to go on, if it was interrupted."""
        if any(outcome.status == "stopped" for outcome in outcomes.values()):
            print("the same command goes on from here", file=self.err, flush=True)

    def trial(self, trial: Trial, look: Look, was_there: bool) -> None:
        """A trial has ended, or had before."""
        self.number += 1
        there = "  (was there)" if was_there else ""
        print(shown(f"[{self.number:>2}] {title(trial):<40}  {_outcome(look)}{there}"), file=self.err, flush=True)

    def finished(self) -> None:
        """The session has its answer."""
        print(f"done in {clock(time.monotonic() - self.began_at)}", file=self.err, flush=True)

    def outlook(self) -> str:
        """`1.4 of at most 5 full runs, 3 min`: what is spent."""
        most = "" if self.budget is None else f" of at most {self.budget:g}"
        spent = f"{self.spent():.2g}{most} full runs, {clock(time.monotonic() - self.began_at)}"
        return self.halted or spent

    def _drawn(self) -> "Group":
        from rich.console import Group
        from rich.text import Text

        return Group(Text(self.outlook()), self.rows())


def title(trial: Trial) -> str:
    """The trial's settings, and where it stops."""
    settings = "  ".join(f"{key}={rate(value)}" for key, value in trial.settings)
    return settings if trial.until >= 1 else f"{settings}  to {trial.until:.0%}"


def _outcome(look: Look) -> str:
    loss = look.observed.curve[-1][1] if look.observed.curve else math.nan
    if look.observed.status == "failed":
        return f"failed: {look.error}; `loralab show {look.run.rpartition('-')[2]}` has it whole"
    if look.observed.status == "diverged":
        return f"diverged at {look.share:.0%} of its steps"
    return f"validation loss {loss:.4f}  {clock(look.seconds)}"
