"""Trains the runs of a sweep that are not done, on a pool of workers, and shows how they go."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from loralab.sweeps.live_folder import LiveFolder, Shown
from loralab.sweeps.pool import Pool
from loralab.sweeps.progress import SweepProgress
from loralab.sweeps.run_jobs import RunJobs
from loralab.sweeps.scheduler import Job, Outcome, Scheduler
from loralab.text import shown
from loralab.training.signals import Interrupted, Interrupts

__all__ = ["Display", "OpenDisplay", "train_missing"]


class Display(Shown, Protocol):
    """What shows the runs of one launch: entered while they train."""

    def conclude(self, titles: Mapping[str, str], outcomes: Mapping[str, Outcome]) -> None:
        """After the last run; titles: of every run, by its key."""


OpenDisplay = Callable[[Sequence[Job], int, Counter[str]], AbstractContextManager[Display]]
"""(the jobs to train, the number of slots, runs by status that were done before) -> their display."""


def train_missing(
    runs: RunJobs,
    open_pool: Callable[[], Pool],
    *,
    stop_on_error: bool,
    pack: int,
    live: LiveFolder,
    display: OpenDisplay = SweepProgress,
) -> dict[str, Outcome]:
    """Every run's outcome, by its key. Raises Interrupted once the interrupted runs have written their checkpoints.

    open_pool: called only if a run is missing; stop_on_error: whether the first failed run stops the others; pack: the
    most runs that a worker trains together; live: where the sweep's state is written.
    """
    looked = time.time()
    found = {key: runs.done(key) for key in dict.fromkeys(runs.keys)}
    outcomes = {key: outcome for key, outcome in found.items() if outcome is not None}
    jobs = runs.jobs([key for key, outcome in found.items() if outcome is None])
    for line in runs.warnings([job.key for job in jobs]):
        print(f"warning: {shown(line)}", file=sys.stderr)
    pool = open_pool() if jobs else None
    places = len(pool.slots) if pool else 0
    settings = {key: runs.settings(key) for key in found}
    live.launched(settings, to_train=[job.key for job in jobs], slots=places, at=looked)
    before = Counter(outcome.status for outcome in outcomes.values())
    with Interrupts() as interrupts, display(jobs, places, before) as progress:
        observer = live.follow(progress)
        if pool is not None:
            scheduler = Scheduler(
                jobs, pool=pool, source=runs, observer=observer,
                interrupted=lambda: interrupts.noted is not None, stop_on_error=stop_on_error, pack=pack,
            )  # fmt: skip
            outcomes |= scheduler.run()
    progress.conclude({key: runs.title(key) for key in outcomes}, outcomes)
    if interrupts.noted is not None:
        raise Interrupted(interrupts.noted)
    return outcomes
