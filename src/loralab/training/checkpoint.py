"""Exact resume: everything that changes during training, in one file that is replaced atomically."""

import contextlib
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from loralab.errors import UserError
from loralab.files import atomic_path
from loralab.training.distributed import ALONE, Ranks
from loralab.training.sealed_file import refuse_damaged, seal

__all__ = ["Checkpointer", "Trained", "load", "refuse_foreign", "unlike"]

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
    """The last state saved under `directory`, or None; unpickles tensors and plain values only.

    Raises UserError unless the file's bytes are those that were saved.
    """
    path = directory / FILE
    try:
        if not S_ISREG(path.stat().st_mode):
            raise _unusable(directory, "it is not a regular file")
        refuse_damaged(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        return None
    except UserError:
        raise
    except OSError as error:
        raise _unusable(directory, error.strerror or str(error)) from error
    except Exception as error:  # torch.load raises whatever a damaged file leads it to
        why = (str(error) or "it is empty").splitlines()[0][:80]
        raise _unusable(directory, why) from error
    if not isinstance(state, dict):
        raise _unusable(directory, "it is not a training's state")
    return state


def _unusable(directory: Path, why: str) -> UserError:
    return UserError(f"{directory / FILE} is damaged ({why}); remove {directory} to train the run from the start")


def refuse_foreign(directory: Path, why: str | None) -> None:
    """Raises UserError if there is a reason why the checkpoint in `directory` is not one of this training."""
    if why is not None:
        raise UserError(
            f"{directory / FILE} is not a checkpoint of this run ({why}); remove {directory} to train the run from the "
            "start"
        )


def unlike(value: Any, like: Any, name: str) -> str | None:
    """How a value differs in its keys, types and shapes from one like it; None in `like` stands for anything."""
    if isinstance(like, Tensor):
        if not isinstance(value, Tensor):
            return f"{name} is no tensor"
        some, other = (f"{str(t.dtype).removeprefix('torch.')} {list(t.shape)}" for t in (value, like))
        return None if some == other else f"{name} is {some}, not {other}"
    if isinstance(like, dict):
        if not isinstance(value, dict) or value.keys() != like.keys():
            differing = sorted(map(str, value.keys() ^ like.keys()))[:1] if isinstance(value, dict) else []
            return f"{name} differs in {differing[0]}" if differing else f"{name} is no mapping"
        return next((w for key in like if (w := unlike(value[key], like[key], f"{name}.{key}")) is not None), None)
    if isinstance(like, list):
        if not isinstance(value, list) or len(value) != len(like):
            return f"{name} is no list of {len(like)}"
        pairs = zip(value, like, strict=True)
        return next((w for a, b in pairs if (w := unlike(a, b, name)) is not None), None)
    wanted = (int, float) if type(like) is float else type(like)
    return None if like is None or isinstance(value, wanted) else f"{name} is no {type(like).__name__}"


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

    def is_finite(self) -> bool:
        """Whether no trained weight is infinite or NaN."""
        return all(bool(torch.isfinite(parameter).all()) for parameter in self.weights.values())

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

    def misfit(self, state: dict[str, Any]) -> str | None:
        """Why `restore` cannot take the state, before it changes anything; None if it can."""
        weights = {name: parameter.detach() for name, parameter in self.weights.items()}
        generators = {**random_state(), "cuda": None}
        parts = {
            "weights": weights,
            "best": weights if state.get("best") is not None else None,
            "optimizer": {"state": None, "param_groups": None},
            "scaler": self.scaler.state_dict(),
            "random": generators,
            "random_of_other_ranks": None,
        }
        missing = [name for name in parts if name not in state]
        if missing:
            return f"it has no {missing[0]}"
        wrong = (unlike(state[name], like, name) for name, like in parts.items())
        return next((w for w in wrong if w is not None), None) or self._misfit_of_optimizer(state["optimizer"])

    def _misfit_of_optimizer(self, state: dict[str, Any]) -> str | None:
        """The same for the optimizer's state, which has no entries before the first step."""
        groups, own = state["param_groups"], self.optimizer.state_dict()["param_groups"]
        like = [{name: group[name] for name in ("params", "lr", "peak_lr") if name in group} for group in own]
        if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
            return "optimizer.param_groups is no list of groups"
        cut = [{name: group[name] for name in ("params", "lr", "peak_lr") if name in group} for group in groups]
        if (wrong := unlike(cut, like, "optimizer.param_groups")) is not None:
            return wrong
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        if not isinstance(state["state"], dict):
            return "optimizer.state is no mapping"
        for index, found in state["state"].items():
            if index not in range(len(parameters)) or not isinstance(found, dict):
                return f"optimizer.state.{index} belongs to no parameter"
            for name, value in found.items():
                if not _fits(name, value, parameters[index]):
                    return f"optimizer.state.{index}.{name} is not like its parameter"
        return None

    def restore(self, state: dict[str, Any]) -> None:
        """Restores what `capture` returned; a rank that did not exist then keeps its generators."""
        self.put(state["weights"])
        self.best = state["best"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        states = [state["random"], *state["random_of_other_ranks"]]
        if self.ranks.index < len(states):
            restore_random_state(states[self.ranks.index])


def _fits(name: str, value: Any, parameter: Tensor) -> bool:
    """Whether a value of an optimizer's state has a form that it may have for the parameter."""
    if name in ("step", "RMS"):  # AdamW counts in a tensor, Adafactor in a number
        return isinstance(value, int) or (isinstance(value, Tensor) and value.shape == torch.Size())
    size = parameter.shape
    shapes = {"exp_avg_sq_row": size[:-1], "exp_avg_sq_col": size[:-2] + size[-1:]}  # of Adafactor
    return isinstance(value, Tensor) and (value.shape, value.dtype) == (shapes.get(name, size), parameter.dtype)


class Checkpointer:
    """Saves at most every `every` seconds, and rarely enough that saving costs under 2% of the time.

    check: called before a file is written, and again before it replaces the last one; it may raise.
    """

    def __init__(self, directory: Path, *, every: float, check: Callable[[], None] = lambda: None) -> None:
        self.path = directory / FILE
        self.every, self.check = every, check
        self.wait = every
        self.last = time.monotonic()

    def due(self) -> bool:
        """Whether the wait since the last save is over."""
        return time.monotonic() - self.last >= self.wait

    def save(self, state: dict[str, Any]) -> None:
        """Replaces the file atomically: at every moment the old or the new state is there, whole."""
        start = time.monotonic()
        self.check()
        with atomic_path(self.path) as temporary:
            _write(state, temporary)
            seal(temporary)
            self.check()
        self.last = time.monotonic()
        self.wait = max(self.every, (self.last - start) / COST)


def _write(state: dict[str, Any], path: Path) -> None:
    """torch.save, but raises the OSError of a full disk, which torch hides behind a RuntimeError."""
    with path.open("wb") as stream:  # given a path, torch would write the file itself, and lose the error
        try:
            torch.save(state, stream)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
