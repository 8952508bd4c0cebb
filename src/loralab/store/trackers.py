"""Trackers mirror metrics.jsonl. Nothing reads them back, and their errors never end a run."""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from loralab.store.mirror import Ending, Mirror, Page, Place
from loralab.store.mlflow_mirror import MlflowMirror
from loralab.store.tensorboard_mirror import TensorboardMirror
from loralab.store.trackio_mirror import TrackioMirror
from loralab.store.wandb_mirror import WandbMirror
from loralab.text import reason

__all__ = ["Mirrored", "NoTracker", "Tracker", "open_tracker"]

logger = logging.getLogger(__name__)

_MIRRORS: dict[str, Callable[[Page], Mirror]] = {
    "wandb": WandbMirror, "tensorboard": TensorboardMirror, "mlflow": MlflowMirror, "trackio": TrackioMirror,
}  # fmt: skip


class Tracker(Protocol):
    """A mirror of a run's metrics; as a context manager it is finished also after an exception."""

    where: Place | None
    """None if the run is not mirrored."""

    def begin(self, lines: Iterable[dict[str, Any]]) -> None:
        """Starts it; lines: those that a resumed run's metrics.jsonl has already."""

    def log(self, line: dict[str, Any]) -> None:
        """Sends one line of metrics.jsonl."""

    def summarise(self, status: str, metrics: dict[str, Any]) -> None:
        """Takes the status and the final metrics of the record."""

    def __enter__(self) -> "Tracker": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class NoTracker:
    """Sends nothing."""

    where: Place | None = None

    def begin(self, lines: Iterable[dict[str, Any]]) -> None:
        """Nothing to start."""

    def log(self, line: dict[str, Any]) -> None:
        """Drops the line."""

    def summarise(self, status: str, metrics: dict[str, Any]) -> None:
        """Drops the metrics."""

    def __enter__(self) -> "NoTracker":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Nothing to finish."""


class Mirrored:
    """A tracker with a mirror: at the end, each number of metrics.jsonl is on the run's page, once.

    A resumed run sends what its page lacks, and does not send again what the page has from before the interruption. The
    tracker's library is imported when the run starts. After its first error, the run continues without it, with one
    warning.
    """

    def __init__(self, kind: str, mirror: Mirror) -> None:
        self.kind = kind
        self.where: Place | None = None
        self.mirror: Mirror | None = mirror
        self.ending = Ending("success", {})
        self.there: set[tuple[str, int]] | None = None
        self.sent: tuple[int, set[str]] = (-1, set())  # at the last step: several lines of a step have its rates
        self.began = time.time()  # when the run would have begun without interruptions

    def begin(self, lines: Iterable[dict[str, Any]]) -> None:
        self._attempt(lambda mirror: self._start(mirror, list(lines)))

    def log(self, line: dict[str, Any]) -> None:
        self._send(line["step"], _numbers(line), self.began + (line.get("seconds") or 0.0))

    def summarise(self, status: str, metrics: dict[str, Any]) -> None:
        self.ending = Ending(status, metrics)

    def __enter__(self) -> "Mirrored":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:  # a signal's exception is no Exception
            self.ending = Ending("failed" if issubclass(kind, Exception) else "interrupted", {})
        if self.there is not None:
            for step, scores in self.ending.scores():
                self._send(step, scores, time.time())
        self._attempt(lambda mirror: mirror.finish(self.ending))

    def _start(self, mirror: Mirror, lines: Sequence[dict[str, Any]]) -> None:
        self.where = mirror.start(resumed=bool(lines))
        self.there = mirror.there()
        if self.there is not None and lines:
            self.began -= lines[-1].get("seconds") or 0.0
            for line in lines:
                self.log(line)

    def _send(self, step: int, values: dict[str, float], at: float) -> None:
        if step != self.sent[0]:
            self.sent = (step, set())
        there = self.there or ()
        new = {n: value for n, value in values.items() if n not in self.sent[1] and (n, step) not in there}
        self.sent[1].update(new)
        if new:
            self._attempt(lambda mirror: mirror.log(step, new, at))

    def _attempt(self, action: Callable[[Mirror], Any]) -> None:
        if self.mirror is None:
            return
        try:
            action(self.mirror)
        except Exception as error:  # an error of the tracker's must not end the run: one warning, then it is off
            logger.warning("%s failed, and the run goes on without it: %s", self.kind, reason(error))
            self.mirror = self.where = None


def open_tracker(
    *,
    kind: str,
    mode: str,
    name: str,
    run_id: str,
    config: dict[str, Any],
    directory: Path,
    store: Path,
    project: str,
    entity: str | None,
    group: str | None,
    tags: Sequence[str],
) -> Tracker:
    """A tracker of this kind for the run called `name`, in its directory; kind and mode: as `tracker` has them."""
    if kind == "none" or mode == "disabled":
        return NoTracker()
    page = Page(run_id, name, directory, store, config, project, entity, group, list(tags), mode)
    return Mirrored(kind, _MIRRORS[kind](page))


def _numbers(line: dict[str, Any]) -> dict[str, float]:
    """A line's numbers by name, as `train/loss`, lr_A, lr_B and seconds; without those that are null."""
    values = {f"{line['split']}/{name}": value for name, value in line["values"].items()}
    values |= {name: line.get(name) for name in ("lr_A", "lr_B", "seconds")}
    return {name: value for name, value in values.items() if value is not None}
