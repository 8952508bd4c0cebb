"""One training's files, screen and signals: what stands around the loop, for a run and for a pretraining.

`open_session` opens metrics.jsonl, the tracker and the worker threads, and restores what the checkpoint holds; the loop
then calls the session between its steps. An interrupt leaves a checkpoint.
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
from loralab.training.checkpoint import Checkpointer, Trained
from loralab.training.distributed import Ranks
from loralab.training.loop import Progress
from loralab.training.signals import Interrupted, Interrupts
from loralab.training.threads import Workers

__all__ = ["Screen", "Session", "open_session", "stored_state"]


class Screen(Protocol):
    """What a person sees of a training; `loralab.runs.console.Console` is one."""

    def started(self, name: str, steps: int, groups: Sequence[dict[str, Any]], *, resumed_at: int) -> None: ...
    def step(self, step: int) -> None: ...
    def alive(self) -> None: ...
    def line(self, line: dict[str, Any]) -> None: ...
    def interrupted(self, step: int, steps: int) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Session:
    """A training that is open: where it stands, and what it writes, shows and listens to as it goes."""

    progress: Progress
    trained: Trained
    journal: Journal
    workers: Workers
    saver: Checkpointer
    screen: Screen
    interrupts: Interrupts
    kept: dict[str, Any]  # what a checkpoint holds beside the training's state

    def log(self, split: str, values: dict[str, float | None]) -> None:
        """One line of metrics.jsonl, with the rates of A and B at this step; what is not finite becomes null."""
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
        if split != "probe":  # hundreds of values: for files, not for eyes
            self.screen.line(line)

    def between_steps(self) -> None:
        """Saves when a checkpoint is due on rank 0; raises Interrupted once a rank has noted a signal."""
        if self.trained.ranks.agree(self.interrupts, due=self.saver.due()):
            self.save()
        self.screen.step(self.progress.step)

    def between_batches(self) -> None:
        """The same within an evaluation, where nothing can be saved."""
        self.trained.ranks.agree(self.interrupts)
        self.screen.alive()

    def save(self) -> None:
        """Writes a checkpoint; every rank calls it, and rank 0 writes."""
        state = self.trained.capture()
        if self.trained.ranks.leads:
            seen = self.journal.sync()
            self.saver.save({"progress": self.progress.to_state(), "metrics_size": seen, **self.kept, **state})


def stored_state(directory: RunDirectory, ranks: Ranks) -> dict[str, Any] | None:
    """The state of the training's checkpoint, as rank 0 reads it; None where there is none."""
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
    """Goes on from `state`, or begins; on rank 0 with the journal and its tracker, elsewhere without files.

    name, steps, groups: what the screen shows first; seed: of the generators, which a checkpoint puts back as they
    were; kept: what each checkpoint is to hold beside the training's state.
    """
    trained.begin(seed)
    if state is not None:
        trained.restore(state)
    with ExitStack() as stack:
        journal = Journal()
        if trained.ranks.leads:
            size = 0 if state is None else state["metrics_size"]
            journal = stack.enter_context(open_journal(directory, tracker, size=size))
        session = Session(
            Progress() if state is None else Progress.from_state(state["progress"]),
            trained,
            journal,
            stack.enter_context(Workers(workers)),
            Checkpointer(directory.checkpoint, every=checkpoint_seconds),
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
