"""Exact resume: everything that changes during training, in one file that is replaced atomically."""

import contextlib
import pickle
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from loralab.errors import UserError
from loralab.files import atomic_path
from loralab.training.distributed import ALONE, Ranks

__all__ = ["Checkpointer", "Trained", "load"]

FILE = "state.pt"
# A checkpoint may cost at most this share of the training time: the next one waits until it does.
COST = 0.02


def random_state() -> dict[str, Any]:
    """The state of every random generator that a run uses: Python, numpy, torch, and each CUDA device."""
    version, internal, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(internal), gauss],
        "numpy": [kind, torch.from_numpy(np.asarray(keys, dtype=np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Restores what `random_state` returned."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])


def load(directory: Path) -> dict[str, Any] | None:
    """The last state saved under `directory`, or None; unpickles tensors and plain values only."""
    path = directory / FILE
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        why = (str(error) or "it is empty").splitlines()[0][:80]
        raise UserError(f"{path} is damaged ({why}); remove {directory} to train the run from the start") from error
    return state


@dataclass
class Trained:
    """What training changes beside `Progress` and files: weights, optimizer, scaler, best weights, generators."""

    weights: dict[str, nn.Parameter]  # the trainable ones, by name
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    best: dict[str, Tensor] | None = None
    ranks: Ranks = ALONE

    def begin(self, seed: int) -> None:
        """Copies rank 0's weights to every rank (machines may draw differently) and seeds each rank's generators."""
        if self.ranks.count > 1:
            self.put(self.ranks.of_first(self._copied()))
        torch.manual_seed(self.ranks.seed(seed))

    def keep_best(self) -> None:
        """Copies the current weights, on the host."""
        self.best = self._copied()

    @contextlib.contextmanager
    def at_best(self) -> Iterator[None]:
        """Inside, the model has its best weights; afterwards the current ones, also after an exception."""
        assert self.best is not None
        present = self._copied()
        self.put(self.best)
        try:
            yield
        finally:
            self.put(present)

    def _copied(self) -> dict[str, Tensor]:
        return {name: parameter.detach().cpu().clone() for name, parameter in self.weights.items()}

    def put(self, weights: dict[str, Tensor]) -> None:
        """Sets the trainable weights, in place."""
        with torch.no_grad():
            for name, parameter in self.weights.items():
                parameter.copy_(weights[name])

    def capture(self) -> dict[str, Any]:
        """The state as tensors and plain values, to be saved before the next step; on every rank, that of all ranks."""
        first, *others = self.ranks.of_all(random_state())
        return {
            "weights": {name: parameter.detach() for name, parameter in self.weights.items()},
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": first,
            "random_of_other_ranks": others,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restores what `capture` returned; a rank that did not exist then keeps its generators."""
        self.put(state["weights"])
        self.best = state["best"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        states = [state["random"], *state["random_of_other_ranks"]]
        if self.ranks.index < len(states):
            restore_random_state(states[self.ranks.index])


class Checkpointer:
    """Saves at most every `every` seconds, and rarely enough that saving costs under 2% of the time."""

    def __init__(self, directory: Path, *, every: float) -> None:
        self.path = directory / FILE
        self.every = every
        self.wait = every
        self.last = time.monotonic()

    def due(self) -> bool:
        """Whether the wait since the last save is over."""
        return time.monotonic() - self.last >= self.wait

    def save(self, state: dict[str, Any]) -> None:
        """Replaces the file atomically: at every moment the old or the new state is there, whole."""
        start = time.monotonic()
        with atomic_path(self.path) as temporary:
            torch.save(state, temporary)
        self.last = time.monotonic()
        self.wait = max(self.every, (self.last - start) / COST)
