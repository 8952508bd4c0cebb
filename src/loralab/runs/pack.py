"""A pack: several runs that train together on one copy of the frozen weights, each with its own data order and ending.

Each run is the training that `loralab.runs.run` completes alone: its optimizer, clipping, validation, checkpoints and
record are its own. The pack computes the gradients that are due in its runs together, in few passes through the model.
A run that ends, diverges or fails leaves; where a pack cannot compute what its runs do alone, they train one by one.
"""

import logging
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loralab.config.schema import Config
from loralab.methods.packed import PackedModel, UnpackableError, share_frozen
from loralab.runs.batch import RunBatch
from loralab.runs.console import Console
from loralab.runs.run import Training, training
from loralab.store.record import PausedRecord, Record
from loralab.training.distributed import ALONE
from loralab.training.signals import Interrupted, Interrupts
from loralab.training.threads import threads_restored

__all__ = ["Ending", "passes", "run_pack"]

logger = logging.getLogger(__name__)

Ending = Record | PausedRecord | Exception | Interrupted
"""What a run of a pack has come to: its record, or what its training raised."""

# A pass on a CPU: its tokens at most, and how many times its own length a batch is padded to at most. On a GPU all go
# through in one pass. CPU ms a step of 8 runs with batches of 8: width 64 (RoBERTa-style, 4 layers), with one order of
# the data, 118 (each run alone), 40 (1024 tokens), 31 (2048); with an order for each run 134, and 56 (any padding), 61
# (1.5), 67 (1.25); width 384 (MiniLM), an order for each, 1118 (alone), 1148 (any padding), 1011 (1.5), 973 (1.25).
PASS_TOKENS, PADDED = 2048, 1.5
# How far the first step's loss and gradient may be from those of the run alone, of their size: rounding, not another
# function. In half precision the rows of two shapes are rounded apart.
TOLERANCE = 1e-3
HALF_TOLERANCE = 0.2


def run_pack(
    configs: Sequence[Config],
    consoles: Sequence[Console],
    ended: Callable[[int, Ending], None] = lambda *_: None,
) -> list[Ending]:
    """What each run came to, in their order; one that is done already is not trained.

    Raises nothing that a run raised: a failure is that of its run, and a signal stops each run at its checkpoint.

    ended: told of each run when it ends.
    """
    with Interrupts() as interrupts, threads_restored():
        pack = _Pack()
        members = []
        for i, (config, console) in enumerate(zip(configs, consoles, strict=True)):
            members.append(_Member(training(config, True, console, interrupts, ALONE), partial(ended, i)))
            members[-1].go_on(None, shared=0.0)
            pack.share(members[-1])
        while live := [member for member in members if member.batch is not None]:
            turn = live if pack.works else live[:1]
            began = time.monotonic()
            losses = pack.losses([member.batch for member in turn if member.batch is not None])
            spent = (time.monotonic() - began) / len(turn)
            for member, loss in zip(turn, losses, strict=True):
                member.go_on(loss, shared=spent)
    return [member.ending for member in members if member.ending is not None]


class _Member:
    """A run of the pack: the batch whose gradient is due, None once it has ended, and what it came to.

    Its clock stands still while other runs work, and goes on for its share of what is computed for all of them.
    """

    def __init__(self, training: Training[Record | PausedRecord], ended: Callable[[Ending], None]) -> None:
        self.training, self.ended = training, ended
        self.batch: RunBatch | None = None
        self.ending: Ending | None = None
        self.left = time.monotonic()

    def go_on(self, loss: Tensor | Exception | None, *, shared: float) -> None:
        """Goes on to the next batch or the end; loss: of the last batch, or why there is none; None: to begin."""
        if self.batch is not None:
            self.batch.session.progress.started += time.monotonic() - self.left - shared
        try:
            if isinstance(loss, Exception):
                self.batch = self.training.throw(loss)
            else:
                self.batch = next(self.training) if loss is None else self.training.send(loss)
        except StopIteration as end:
            self._end(end.value)
        except (Exception, Interrupted) as error:
            self._end(error)
        self.left = time.monotonic()

    def _end(self, ending: Ending) -> None:
        self.batch, self.ending = None, ending
        self.ended(ending)


class _Pack:
    """Computes the gradients of several runs together. works: whether it can; else they are computed one by one."""

    def __init__(self) -> None:
        self.works = True
        self.first: Any = None  # the model with which all share their frozen weights
        self.models: list[Any] = []
        self.packed: PackedModel | None = None
        self.checked = False

    def share(self, member: _Member) -> None:
        """Gives a run that has just loaded its model the frozen weights of the first one."""
        if member.batch is None:
            return
        model = member.batch.prepared.model
        self.first = model if self.first is None else self.first
        try:
            share_frozen(model, self.first)
        except UnpackableError as why:
            self._give_up(str(why))

    def losses(self, batches: Sequence[RunBatch]) -> list[Tensor | Exception]:
        """The loss of each run's batch, whose gradient is then in `grad`, or the error of one that has none."""
        if self.works and len(batches) > 1:
            try:
                return [*self._together(batches)]
            except Exception as error:  # such as one of memory; what is wrong with a run is found when it is alone
                self._give_up(" ".join(f"{type(error).__name__}: {error}".split())[:200])
        return [_alone(batch) for batch in batches]

    def _give_up(self, why: str) -> None:
        logger.warning("the runs of a pack train one after another: %s", why)
        self.works, self.packed, self.models = False, None, []
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _together(self, batches: Sequence[RunBatch]) -> list[Tensor]:
        models = [batch.prepared.model for batch in batches]
        if self.packed is None or models != self.models:
            self.packed, self.models = None, models  # the old one's memory first
            self.packed = PackedModel(models)
        losses = _gradients(self.packed, batches)
        if not self.checked:
            self._check(batches, losses)
        for batch in batches:
            progress = batch.session.progress
            progress.packed = max(progress.packed, len(batches))
        return losses

    def _check(self, batches: Sequence[RunBatch], losses: Sequence[Tensor]) -> None:
        """Raises UnpackableError unless the first step is each run's own: a model may mix the rows of its batch."""
        for batch, loss in zip(batches, losses, strict=True):
            weights, half = batch.prepared.trained.weights, batch.prepared.planned.config.train.precision != "fp32"
            tolerance = HALF_TOLERANCE if half else TOLERANCE
            found = {name: p.grad for name, p in weights.items() if p.grad is not None}
            for parameter in weights.values():
                parameter.grad = None
            wanted = batch.backward()
            if not all(bool(p.grad.isfinite().all()) for p in weights.values() if p.grad is not None):
                return  # fp16's first scales overflow, and such a step is skipped: the next one is looked at
            size = math.sqrt(sum(float(p.grad.square().sum()) for p in weights.values() if p.grad is not None))
            apart = {n: float((p.grad - found[n]).norm()) for n, p in weights.items() if p.grad is not None}
            wrong = [n for n, a in apart.items() if not a <= tolerance * (float(found[n].norm()) + 0.01 * size)]
            if wrong or not abs(float(loss - wanted)) <= tolerance * max(1.0, abs(float(wanted))):
                raise UnpackableError(f"the model gives other gradients in a larger batch ({', '.join(wrong[:1])})")
        self.checked = True


def _alone(batch: RunBatch) -> Tensor | Exception:
    for parameter in batch.prepared.trained.weights.values():
        parameter.grad = None
    try:
        return batch.backward()
    except Exception as error:
        return error


def _gradients(packed: PackedModel, batches: Sequence[RunBatch]) -> list[Tensor]:
    """Each batch's loss, with its gradient in the `grad` of its run."""
    objective, kind = batches[0].prepared.objective, batches[0].prepared.planned.device.type
    lengths = objective.lengths("train")
    shapes = [(len(batch.rows), int(lengths[batch.rows].max())) for batch in batches]
    losses: dict[int, Tensor] = {}
    packed.refresh()
    most, padded = (PASS_TOKENS, PADDED) if kind == "cpu" else (math.inf, math.inf)
    for runs in passes(shapes, most=most, padded=padded):
        joint = objective.batch("train", np.concatenate([batches[i].rows for i in runs]))
        logits = _by_run(packed.forward(runs, joint), joint, len(runs))
        total: Any = 0.0
        for i, own, labels in zip(runs, logits, joint["labels"].chunk(len(runs)), strict=True):
            prepared = batches[i].prepared
            loss = prepared.objective.loss(own, labels)
            total = total + prepared.trained.scaler.scale(loss)
            losses[i] = loss.detach()
        total.backward()
    packed.give_gradients()
    return [losses[i] for i in range(len(batches))]


def _by_run(logits: Tensor, batch: dict[str, Tensor], count: int) -> Sequence[Tensor]:
    """The logits of each run's rows; those of targets alone are (targets, vocabulary)."""
    if "logits_to_keep" not in batch:
        return logits.chunk(count)
    return torch.split(logits, batch["logits_to_keep"].reshape(count, -1).sum(1).tolist())


def passes(shapes: Sequence[tuple[int, int]], *, most: float, padded: float) -> list[list[int]]:
    """Which batches go through the model at once: of equally many rows and of similar lengths.

    shapes: rows and tokens of the longest row of each batch; most: tokens of a pass, unless one batch has more; padded:
    how many times its own length a batch may get.
    """
    found: list[list[int]] = [[]]
    for i in sorted(range(len(shapes)), key=lambda i: shapes[i], reverse=True):
        there = found[-1]
        rows, longest = shapes[there[0] if there else i]
        tokens = (len(there) + 1) * rows * longest
        if shapes[i][0] != rows or longest > padded * shapes[i][1] or (there and tokens > most):
            found.append([])
        found[-1].append(i)
    return [sorted(runs) for runs in found]
