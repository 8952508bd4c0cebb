"""The loop: forward, backward, clip, step; evaluates and checkpoints; stops if training diverges.

`Progress` is everything that changes beside the weights, the optimizer and the random generators. The loop takes
functions and is independent of methods, trackers and tasks. It is a generator of the batches whose gradients are due,
so that its caller may compute those of several loops at once (loralab.runs.pack); `complete` runs one alone.
"""

import math
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

__all__ = ["Batch", "Probing", "Progress", "complete", "exploded", "train", "unwatched"]

Result = TypeVar("Result")

# A run has exploded when its training loss passes this multiple of the loss before the first step, and of 1: a lucky
# batch, or a checkpoint that was trained on the task, starts near 0. Of a regression, the first batch may also miss
# the outliers that a later one has, so that its largest labels count.
EXPLODED = 20.0


def exploded(loss: float | None, start: float | None) -> bool:
    """Whether a loss is not finite (None), or far above `start`, the loss before the first step."""
    return loss is None or not math.isfinite(loss) or loss > EXPLODED * max(1.0, start or 0.0)


@dataclass
class Progress:
    """The progress of a run; `to_state` and `from_state` store it in a checkpoint."""

    step: int = 0
    evaluated: int = -1  # the last step that was evaluated
    tokens: int = 0
    seconds: float = 0.0  # of training and evaluation, up to the last checkpoint
    evaluation_seconds: float = 0.0
    first_loss: float | None = None
    diverged: bool = False
    packed: int = 1  # the most runs that were trained together with it, itself among them
    best: dict[str, Any] | None = None  # the best validation scores, with their step
    last: dict[str, Any] | None = None  # the latest ones
    losses: list[Tensor] = field(default_factory=list)  # since the last line of training loss; still on the device
    started: float = field(default_factory=time.monotonic)

    def elapsed(self) -> float:
        """Seconds of this run over all the processes that worked on it."""
        return self.seconds + time.monotonic() - self.started

    def timing(self) -> dict[str, float]:
        """Seconds and rates up to now; the rates are over training alone."""
        seconds = self.elapsed()
        training = seconds - self.evaluation_seconds
        return {
            "seconds": seconds,
            "training_seconds": training,
            "evaluation_seconds": self.evaluation_seconds,
            "steps_per_second": self.step / training,
            "tokens_per_second": self.tokens / training,
            "tokens": self.tokens,
        }

    def to_state(self) -> dict[str, Any]:
        """Plain values, with the clock stopped at now."""
        losses = [float(loss) for loss in self.losses]
        return {**vars(self), "losses": losses, "seconds": self.elapsed(), "started": 0.0}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Progress":
        """The inverse, with the clock going on from now."""
        losses = [torch.tensor(loss) for loss in state["losses"]]
        return cls(**{**state, "losses": losses, "started": time.monotonic()})


@dataclass(frozen=True)
class Batch:
    """The batch of a step.

    tokens: the real ones in it; backward: gives its mean loss, detached, and leaves its gradient in `grad` of each
    trained parameter.
    """

    tokens: int
    backward: Callable[[], Tensor]


AnyBatch = TypeVar("AnyBatch", bound=Batch)
Probing = Callable[[Progress], AbstractContextManager[object]]


def unwatched(_progress: Progress) -> AbstractContextManager[object]:
    """No probe."""
    return nullcontext()


def complete(training: Generator[Batch, Tensor, Result]) -> Result:
    """What a training returns at its end, with each gradient computed by the batch itself."""
    try:
        batch = next(training)
        while True:
            try:
                loss = batch.backward()
            except BaseException as error:
                batch = training.throw(error)  # for the training to record; it ends
            else:
                batch = training.send(loss)
    except StopIteration as end:
        result: Result = end.value
        return result


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    steps: int,
    fetch: Callable[[int], AnyBatch],
    factor: Callable[[int], float],
    scaler: torch.amp.GradScaler,
    clip: float | None,
    log_every: int,
    progress: Progress,
    evaluation_due: Callable[[int], bool],
    evaluate: Callable[[Progress], None],
    log: Callable[[Progress, float], None],
    checkpoint: Callable[[Progress], None],
    probing: Probing = unwatched,
    start: float = 0.0,
    until: int | None = None,
    ended: Callable[[Progress], bool] = lambda _: False,
) -> Generator[AnyBatch, Tensor, None]:
    """Trains from `progress.step` to `steps`, or until the loss is not finite or explodes (`progress.diverged`).

    Yields the batch of each step, and is sent its loss once its gradient is in `grad`. The last update is judged by the
    last evaluation, which sets `progress.diverged`, since no training loss follows.

    fetch: step -> its batch; factor: step -> the factor on each group's `peak_lr`; log: called with the mean loss of
    every `log_every` steps; checkpoint: called between any two steps, when `progress` is consistent; it may raise;
    probing: opened around each update, before which `progress.step` is one less than after it; start: a loss that an
    example may have before the first step, where that of the first batch may be far lower; until: the step at which to
    return already, from which a later call goes on to the bytes of one that did not; ended: whether the training ends
    early, asked between any two steps, a function of `progress` alone.
    """
    params = [p for group in optimizer.param_groups for p in group["params"]]
    stop = steps if until is None else until
    model.train()
    while True:
        if evaluation_due(progress.step) and progress.evaluated < progress.step and not progress.diverged:
            began = time.monotonic()
            evaluate(progress)
            progress.evaluated = progress.step
            progress.evaluation_seconds += time.monotonic() - began
        checkpoint(progress)
        if progress.step >= stop or progress.diverged or ended(progress):
            return

        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor(progress.step)
        batch = fetch(progress.step)
        loss = yield batch
        if clip is not None:
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(params, clip)
        with probing(progress):
            scaler.step(optimizer)
            scaler.update()
            progress.step += 1
        optimizer.zero_grad(set_to_none=True)

        progress.tokens += batch.tokens
        progress.losses.append(loss)
        if progress.first_loss is None:
            progress.first_loss = loss.item()
        if len(progress.losses) == log_every or progress.step == steps:
            mean = fmean(map(float, progress.losses))  # the only synchronisation with the device
            progress.losses = []
            progress.diverged = exploded(mean, max(progress.first_loss, start))
            log(progress, mean)
