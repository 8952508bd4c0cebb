"""Several processes on one run, started by torchrun: each computes a part of every batch; rank 0 decides and writes.

accelerate starts and joins them and picks their devices; it is imported only where there are several. The gradients are
summed here and not by DDP: DDP averages over ranks, which is not the gradient of the mean over a batch that does not
divide, it sees no gradient of `torch.autograd.grad` (which the shards of one process use), and its wrapper renames
every parameter. A LoRA's gradients are small, so that one message after the backward pass carries them all, and the
loss with them. Agreement between two steps uses a second group, gloo's, which does not wait for the GPU.

Torch is imported where it is used, so that calling `launched` alone takes milliseconds.
"""

import atexit
import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

from loralab.errors import UserError
from loralab.training.signals import Interrupted, Interrupts

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch import Tensor, nn

__all__ = ["ALONE", "IGNORED", "Ranks", "join", "launched", "let_first_speak", "refuse_multirun", "terms"]

T = TypeVar("T")

# The longest that ranks wait while rank 0 works alone (downloads, tokenises, saves); one that dies is noticed at once.
PATIENCE = timedelta(hours=6)
# Seconds that the first process of a machine has to print a mistake and end, before the others print it.
FIRST_WORD = 10.0
# The label of a position that is no target: torch's own value for it.
IGNORED = -100


def terms(labels: "Tensor") -> int:
    """Number of terms that a batch's loss averages over: its examples (batch,), or its targets (batch, tokens).

    Targets are the labels that are not IGNORED. Parts of a batch are weighed by it, so that workers and ranks together
    give the gradient of the whole batch's mean.
    """
    return len(labels) if labels.ndim == 1 else int((labels != IGNORED).sum())


@dataclass(frozen=True)
class Ranks:
    """This process's place among those of its run: rank `index` of `count`. All ranks call the same methods in order.

    If one has died, a method raises RuntimeError on rank 0 and SystemExit on the others, which end silently.
    """

    index: int = 0
    count: int = 1
    group: Any = None  # gloo's, for agreement
    in_step: bool = False  # whether a forward pass takes all ranks (sharding.py), so that all compute equally many

    def without_gradients(self) -> "AbstractContextManager[Any]":
        """torch's inference mode; FSDP2 would keep buffers of it that a training step may not write to."""
        import torch

        return torch.no_grad() if self.in_step else torch.inference_mode()

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which alone plans and writes."""
        return self.index == 0

    def of_first(self, value: T) -> T:
        """Rank 0's `value`, on every rank."""
        if self.count == 1:
            return value
        from torch import distributed

        box = [value]
        with self._jointly():
            distributed.broadcast_object_list(box, src=0, group=self.group)
        return box[0]

    def of_all(self, value: T) -> list[T]:
        """Every rank's `value`, in their order, on every rank."""
        if self.count == 1:
            return [value]
        from torch import distributed

        values: list[Any] = [None] * self.count
        with self._jointly():
            distributed.all_gather_object(values, value, group=self.group)
        return values

    def agree(self, interrupts: Interrupts, *, due: bool = False) -> bool:
        """Whether it is `due` on rank 0; raises Interrupted on every rank once one of them has noted a signal."""
        if self.count == 1:
            interrupts.check()
            return due
        import torch

        word = torch.tensor([interrupts.noted or 0, due and self.leads])
        with self._jointly():
            torch.distributed.all_reduce(word, torch.distributed.ReduceOp.MAX, group=self.group)
        noted, is_due = word.tolist()
        if noted:
            raise Interrupted(noted)
        return bool(is_due)

    def part(self, batch: Mapping[str, "Tensor"]) -> tuple[dict[str, "Tensor"], float]:
        """This rank's rows of `batch`, index::count, and their share of its `terms`.

        A rank that gets none takes the first row with a share of 0, so that all compute the same graph.
        """
        if self.count == 1:
            return dict(batch), 1.0
        rows = len(batch["labels"])
        mine = slice(self.index, None, self.count) if self.index < rows else slice(1)
        part = {name: value[mine] for name, value in batch.items()}
        return part, terms(part["labels"]) / terms(batch["labels"]) if self.index < rows else 0.0

    def add_up(self, loss: "Tensor", parameters: Sequence["nn.Parameter"]) -> "Tensor":
        """The sum of every rank's `loss`; the `grad` of each parameter becomes the sum of every rank's."""
        if self.count == 1:
            return loss
        import torch

        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([*(g.flatten() for g in gradients), loss.reshape(1)])
        with self._jointly():
            torch.distributed.all_reduce(flat)
        *sums, total = torch.split(flat, [*(g.numel() for g in gradients), 1])
        for gradient, its_sum in zip(gradients, sums, strict=True):
            gradient.copy_(its_sum.view_as(gradient))
        return total[0].clone()

    @contextlib.contextmanager
    def in_turn(self) -> Iterator[None]:
        """Rank 0 goes first: the others read what it downloads and caches inside. Within `agreed`."""
        if not self.leads:
            if not self.of_first(False):
                raise UserError("rank 0 says why")
            yield
            return
        done = False
        try:
            yield
            done = True
        finally:
            self.of_first(done)

    def agreed(self, function: Callable[[], T]) -> T:
        """The result of `function` on this rank; a UserError of any rank is raised on all."""
        if self.count == 1:
            return function()
        result, mistake = None, None
        try:
            result = function()
        except UserError as error:
            mistake = error
        for line in self.of_all(None if mistake is None else str(mistake)):
            if line is not None:
                raise UserError(line) from mistake
        return cast(T, result)

    def seed(self, seed: int) -> int:
        """A separate seed for each rank; rank 0's is `seed` itself."""
        import numpy as np

        return seed if self.leads else int(np.random.SeedSequence([seed, self.index]).generate_state(1)[0])

    @contextlib.contextmanager
    def _jointly(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # gloo raises nothing narrower for a closed connection
            if self.leads:
                raise RuntimeError("another process of this run has ended; its own output says why") from error
            raise SystemExit(1) from error


ALONE = Ranks()


def launched() -> int:
    """How many processes torchrun started for one run; 1 in any other process."""
    return int(os.environ["WORLD_SIZE"]) if "LOCAL_WORLD_SIZE" in os.environ else 1


def refuse_multirun() -> None:
    """Raises UserError where torchrun started this process: its processes share one run."""
    if launched() > 1:
        raise UserError(
            f"torchrun's {launched()} processes train one run together, and a multirun is many runs; "
            "give torchrun one run at a time, or leave it out"
        )


def let_first_speak() -> None:
    """Call before printing a user's mistake: all processes of a run make the same one, and one line is enough.

    The first process of a machine goes on at once; torchrun ends the others when it ends. A process that is still there
    after the wait is the only one with the mistake.
    """
    if launched() > 1 and os.environ["LOCAL_RANK"] != "0":
        time.sleep(FIRST_WORD)


@contextlib.contextmanager
def join(device: str) -> Iterator[Ranks]:
    """This process's place in its run, whose ranks leave together; one process is ALONE.

    device: what the config asks for. Raises UserError where accelerate or a device is missing.
    """
    ranks = ALONE if launched() == 1 else _joined(device)
    try:
        yield ranks
    except Interrupted:
        ranks.of_all(None)  # wait until rank 0 has saved: torchrun ends the others when the first one ends
        raise
    ranks.of_all(None)


@functools.cache  # a process can join once
def _joined(asked: str) -> Ranks:
    kind = _device_kind(asked)
    try:
        from accelerate import PartialState
    except ImportError:
        line = "torchrun started several processes, which takes accelerate; run: pip install accelerate"
        raise UserError(line) from None
    from torch import distributed

    state = PartialState(cpu=kind == "cpu")
    atexit.register(state.destroy_process_group)
    group = distributed.new_group(backend="gloo", timeout=PATIENCE)
    return Ranks(state.process_index, state.num_processes, group)


def _device_kind(asked: str) -> str:
    """The kind of device of this machine's ranks: cpu, or cuda, where each takes the device of its local rank."""
    import torch

    from loralab.device import pick_device

    local = int(os.environ["LOCAL_WORLD_SIZE"])
    place = pick_device(asked)
    if place.type == "mps" or place.index is not None:
        raise UserError(f"train.device: got {asked!r}, and torchrun started {local} processes here; use cuda or cpu")
    there = torch.cuda.device_count()
    if place.type == "cuda" and local > there:
        gpus = f"{there} GPU{'s' if there != 1 else ''}"
        raise UserError(f"torchrun started {local} processes on {gpus}; start one for each: --nproc-per-node=gpu")
    return place.type
