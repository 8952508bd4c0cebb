"""The journal of a run: metrics.jsonl, its tracker, and the count of executed steps."""

import contextlib
from collections.abc import Iterator
from typing import Any

from loralab.store.metrics_file import MetricsFile, StepCounter
from loralab.store.mirror import Place
from loralab.store.run_directory import RunDirectory
from loralab.store.trackers import Tracker

__all__ = ["Journal", "open_journal"]


class Journal:
    """A journal that writes nothing, for the ranks other than 0."""

    def step(self) -> None:
        """Counts a step, just before it is executed."""

    def line(self, line: dict[str, Any]) -> None:
        """Adds one line to metrics.jsonl and the tracker."""

    def sync(self) -> int:
        """Flushes every line to disk and returns the file's size, for the checkpoint."""
        return 0

    def summarise(self, status: str, metrics: dict[str, Any]) -> None:
        """Sends the record's status and metrics to the tracker."""

    @property
    def mirrored(self) -> Place | None:
        """Where the tracker mirrors the run; None where it does not."""
        return None

    @property
    def executed(self) -> int:
        """The number of executed steps, over all processes that worked on the run, including repeated steps."""
        return 0


class _Written(Journal):
    def __init__(self, directory: RunDirectory, metrics: MetricsFile, counter: StepCounter, tracker: Tracker) -> None:
        self.directory, self.metrics, self.counter, self.tracker = directory, metrics, counter, tracker

    def step(self) -> None:
        self.counter.add()

    def line(self, line: dict[str, Any]) -> None:
        self.directory.check()  # before the file's own check, since it says more
        self.metrics.append(line)
        self.tracker.log(line)

    def sync(self) -> int:
        self.directory.check()
        return self.metrics.sync()

    def summarise(self, status: str, metrics: dict[str, Any]) -> None:
        self.tracker.summarise(status, metrics)

    @property
    def mirrored(self) -> Place | None:
        return self.tracker.where

    @property
    def executed(self) -> int:
        return self.counter.count


@contextlib.contextmanager
def open_journal(directory: RunDirectory, tracker: Tracker, *, size: int) -> Iterator[Journal]:
    """The journal of the process that holds the run; size: of metrics.jsonl at the checkpoint, in bytes.

    On exit, also by an exception, closes the files and finishes the tracker. Raises LostRunError where metrics.jsonl is
    not the one that was written.
    """
    metrics = MetricsFile(directory.path, size=size)
    counter = StepCounter(directory.path)
    try:
        with tracker:
            tracker.begin(metrics.lines())
            written = _Written(directory, metrics, counter, tracker)
            yield written
            written.sync()  # it may have been removed since its last line
    finally:
        metrics.close()
        counter.close()
