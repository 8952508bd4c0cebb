"""The files, output and signals of one training, for a run and for a pretraining.

`open_session` opens metrics.jsonl, the tracker and the worker threads, and restores the checkpoint. The loop calls the
session between its steps. An interrupt writes a checkpoint.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from loralab.store.metrics_log import Journal, open_journal
from loralab.store.run_directory import RunDirectory
from loralab.store.trackers import Tracker
from loralab.text import finite
from loralab.training import checkpoint
from loralab.training.checkpoint import Checkpointer, Trained, refuse_foreign, unlike
from loralab.training.distributed import Ranks
from loralab.training.loop import Progress
from loralab.training.signals import Interrupted, Interrupts
from loralab.training.threads import Workers

__all__ = ["Screen", "Session", "open_session", "stored_state"]


class Screen(Protocol):
    """Progress output of a training, such as `loralab.runs.console.Console`."""

    def started(self, name: str, steps: int, groups: Sequence[dict[str, Any]], *, resumed_at: int) -> None: ...
    def step(self, step: int) -> None: ...
    def alive(self) -> None: ...
    def line(self, line: dict[str, Any]) -> None: ...
    def interrupted(self, step: int, steps: int) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Session:
    """A running training: its progress, files, output and interrupts."""

    progress: Progress
    trained: Trained
    directory: RunDirectory
    journal: Journal
    workers: Workers
    saver: Checkpointer
    screen: Screen
    interrupts: Interrupts
    kept: dict[str, Any]  # stored in each checkpoint beside the training's state

    def log(self, split: str, values: dict[str, float | None]) -> None:
        """Writes a line of metrics.jsonl, with the rates of A and B at this step; non-finite values become null."""
        rates = {role: group["lr"] for group in self.trained.optimizer.param_groups for role in group["roles"]}
        line = {
            "step": self.progress.step,
            "split": split,
            "values": {name: finite(value) for name, value in values.items()},
            "lr_A": rates.get("A"),
            "lr_B": rates.get("B"),
            "seconds": round(self.progress.elapsed(), 3),
        }
        self.journal.line(line)
        if split != "probe":  # a probe has hundreds of values, too many to show
            self.screen.line(line)

    def between_steps(self) -> None:
        """Saves when a checkpoint is due on rank 0; raises Interrupted after any rank received a signal.

        Raises LostRunError if the run's directory was removed, as does `between_batches`.
        """
        self.directory.check()
        if self.trained.ranks.agree(self.interrupts, due=self.saver.due()):
            self.save()
        self.screen.step(self.progress.step)

    def between_batches(self) -> None:
        """For evaluations: raises Interrupted after any rank received a signal; never saves."""
        self.directory.check()
        self.trained.ranks.agree(self.interrupts)
        self.screen.alive()

    def save(self) -> None:
        """Writes a checkpoint. Every rank must call it; only rank 0 writes."""
        state = self.trained.capture()
        if self.trained.ranks.leads:
            seen = self.journal.sync()
            self.saver.save({"progress": self.progress.to_state(), "metrics_size": seen, **self.kept, **state})


def stored_state(directory: RunDirectory, ranks: Ranks) -> dict[str, Any] | None:
    """The checkpoint's state, read by rank 0 and sent to the others; None where there is no checkpoint.

    Raises UserError for a damaged one.
    """
    return ranks.of_first(checkpoint.load(directory.checkpoint) if ranks.leads else None)


@contextmanager
def open_session(
    trained: Trained,
    directory: RunDirectory,
    state: dict[str, Any] | None,
    *,
    name: str,
    steps: int,
    groups: Sequence[dict[str, Any]],
    seed: int,
    tracker: Tracker,
    workers: int,
    checkpoint_seconds: float,
    screen: Screen,
    interrupts: Interrupts,
    kept: dict[str, Any] | None = None,
) -> Iterator[Session]:
    """Opens a training, resumed from `state` unless it is None; only rank 0 opens the journal and the tracker.

    name, steps, groups: shown when the training starts; seed: of the random generators, whose state a checkpoint
    restores; kept: stored in each checkpoint beside the training's state. Raises UserError if `state` is not of this
    training: of other weights, or with another value of something kept.
    """
    trained.begin(seed)
    if state is not None:
        refuse_foreign(directory.checkpoint, _misfit(trained, state, kept or {}))
        trained.restore(state)
    with ExitStack() as stack:
        journal = Journal()
        if trained.ranks.leads:
            size = 0 if state is None else state["metrics_size"]
            journal = stack.enter_context(open_journal(directory, tracker, size=size))
        session = Session(
            Progress() if state is None else Progress.from_state(state["progress"]),
            trained,
            directory,
            journal,
            stack.enter_context(Workers(workers)),
            Checkpointer(directory.checkpoint, every=checkpoint_seconds, check=directory.check),
            screen,
            interrupts,
            kept or {},
        )
        screen.started(name, steps, groups, resumed_at=session.progress.step)
        try:
            yield session
        except Interrupted:
            session.save()
            screen.interrupted(session.progress.step, steps)
            raise
        finally:
            screen.close()


def _misfit(trained: Trained, state: dict[str, Any], kept: dict[str, Any]) -> str | None:
    """Why a checkpoint's state is not one of this training; None if it is."""
    for name, value in kept.items():
        if state.get(name, value) != value:  # older checkpoints do not have every name
            return f"its {name} is {str(state[name])[:40]}"
    parts = {"progress": {**Progress().to_state(), "losses": None}, "metrics_size": 0}
    if isinstance(state.get("progress"), dict):
        state["progress"].setdefault("packed", 1)  # older checkpoints do not have it
    for name, like in parts.items():
        if (wrong := unlike(state.get(name), like, name)) is not None:
            return wrong
    progress = state["progress"]
    if not isinstance(progress["losses"], list) or min(progress["step"], state["metrics_size"]) < 0:
        return "progress has no losses, or is negative"
    return trained.misfit(state)
