"""What a run writes as it trains: metrics.jsonl, its tracker, and the count of its executed steps."""

import contextlib
from collections.abc import Iterator
from typing import Any

from loralab.store.run_directory import MetricsFile, RunDirectory, StepCounter
from loralab.store.trackers import Tracker

__all__ = ["Journal", "open_journal"]


class Journal:
    """Writes nothing: the journal of a process that computes a part of a run."""

    def step(self) -> None:
        """Counts a step that is about to be executed."""

    def line(self, line: dict[str, Any]) -> None:
        """One line of metrics.jsonl."""

    def sync(self) -> int:
        """Makes every line durable and gives the file's size, for the checkpoint."""
        return 0

    def summarise(self, metrics: dict[str, Any]) -> None:
        """The final metrics."""

    @property
    def executed(self) -> int:
        """The steps really executed, by every process that worked on the run."""
        return 0


class _Written(Journal):
    def __init__(self, metrics: MetricsFile, counter: StepCounter, tracker: Tracker) -> None:
        self.metrics, self.counter, self.tracker = metrics, counter, tracker

    def step(self) -> None:
        self.counter.add()

    def line(self, line: dict[str, Any]) -> None:
        self.metrics.append(line)
        self.tracker.log(line)

    def sync(self) -> int:
        return self.metrics.sync()

    def summarise(self, metrics: dict[str, Any]) -> None:
        self.tracker.summarise(metrics)

    @property
    def executed(self) -> int:
        return self.counter.count


@contextlib.contextmanager
def open_journal(directory: RunDirectory, tracker: Tracker, *, size: int) -> Iterator[Journal]:
    """The journal of the process that holds the run; `size` is what of metrics.jsonl its checkpoint had seen.

    It is closed and the tracker finished also after an exception.
    """
    metrics = MetricsFile(directory, size=size)
    counter = StepCounter(directory)
    try:
        with tracker:
            yield _Written(metrics, counter, tracker)
    finally:
        metrics.close()
        counter.close()
