"""Whether a setting's value is allowed: else one line that names the key, what was got, and what is allowed."""

import difflib
import re
from collections.abc import Collection, Sequence
from typing import Any

from loralab.errors import UserError

__all__ = ["betas_of_adam", "length_of_training", "name_of_device", "one_of", "within"]


def one_of(key: str, value: str, allowed: Collection[str]) -> None:
    """Raises UserError, with the nearest allowed value, unless `value` is allowed."""
    if value not in allowed:
        near = difflib.get_close_matches(value, allowed, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(f"{key}: got {value!r}; allowed: {', '.join(allowed)}{hint}")


def within(
    key: str, value: float, *, at_least: float | None = None, above: float | None = None, below: float | None = None
) -> None:
    """Raises UserError unless `value` is a finite number in the range."""
    limits: list[tuple[Any, str, bool]] = [
        (at_least, "at least", at_least is None or value >= at_least),
        (above, "above", above is None or value > above),
        (below, "below", below is None or value < below),
    ]
    if not all(ok for _, _, ok in limits) or value != value or value in (float("inf"), float("-inf")):
        allowed = " and ".join(f"{word} {limit}" for limit, word, _ in limits if limit is not None)
        raise UserError(f"{key}: got {value}; it must be a {f'number {allowed}' if allowed else 'finite number'}")


def betas_of_adam(betas: Sequence[float]) -> None:
    """Raises UserError unless optim.betas are two numbers in [0, 1)."""
    if len(betas) != 2:
        raise UserError(f"optim.betas: got {betas}; it takes two numbers, as [0.9, 0.999]")
    for beta in betas:
        within("optim.betas", beta, at_least=0, below=1)


def length_of_training(epochs: float | None, steps: int | None) -> None:
    """Raises UserError unless train.epochs or train.steps says how long to train."""
    if epochs is None and steps is None:
        raise UserError("train.epochs, train.steps: got null and null; set one of them (steps wins over epochs)")
    if epochs is not None:
        within("train.epochs", epochs, above=0)
    if steps is not None:
        within("train.steps", steps, at_least=1)


def name_of_device(device: str) -> None:
    """Raises UserError unless train.device is auto, or a device of torch's."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", device):
        one_of("train.device", device, ("auto", "cpu", "cuda", "cuda:N", "mps"))
