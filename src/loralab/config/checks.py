"""What a setting's value may be, stated beside its field in a schema, and the one walk that checks a whole config.

A value that is not allowed is one line that names the key, what was got, and what is allowed.
"""

import difflib
import functools
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import field, fields, is_dataclass
from typing import Any

from omegaconf import MISSING

from loralab.errors import UserError

__all__ = [
    "added_later", "betas_of_adam", "check_values", "choice", "drop_added", "length_of_training", "name_of_device",
    "not_empty", "number", "one_of", "setting", "within",
]  # fmt: skip

Rule = Callable[[str, Any], None]
"""Takes a dotted key and its value, and raises UserError for a value that is not allowed."""


def number(
    *,
    at_least: float | None = None,
    above: float | None = None,
    below: float | None = None,
    default: Any = MISSING,
) -> Any:
    """A field for a finite number in the range."""
    return setting(functools.partial(within, at_least=at_least, above=above, below=below), default=default)


def choice(*allowed: str, default: Any = MISSING) -> Any:
    """A field for one of the `allowed` texts."""
    return setting(functools.partial(one_of, allowed=allowed), default=default)


def setting(rule: Rule, *, default: Any = MISSING) -> Any:
    """A field whose value `rule` checks, unless it is null; `default` is for stored configs that lack its node."""
    return field(default=default, metadata={"rule": rule})


def added_later(declared: Any, *, before: Any) -> Any:
    """A field that is younger than stored runs; `before` is the value that stands for what they did.

    A stored config that lacks the key has this value, and a run with it has the hash that it had before there was the
    key.
    """
    return field(default=before, metadata={**declared.metadata, "before": before})


def check_values(config: Any, node: str = "") -> None:
    """Raises UserError for the first value that the rule beside its field refuses: a node's own, then its nodes'."""
    for each in fields(config):
        rule, value = each.metadata.get("rule"), getattr(config, each.name)
        if rule is not None and value is not None:
            rule(f"{node}{each.name}", value)
    for each in fields(config):
        value = getattr(config, each.name)
        if is_dataclass(value):
            check_values(value, f"{node}{each.name}.")


def drop_added(values: dict[str, Any], config: Any) -> None:
    """Deletes from `values`, the dictionary of `config`, every `added_later` key that has the value from before it."""
    for each in fields(config):
        value = getattr(config, each.name)
        if is_dataclass(value):
            drop_added(values[each.name], value)
        elif "before" in each.metadata and value == each.metadata["before"]:
            del values[each.name]


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


def not_empty(advice: str) -> Rule:
    """The rule that a text or a list is not empty; `advice` is the end of the line where it is."""

    def rule(key: str, value: Sequence[str]) -> None:
        if not value:
            raise UserError(f"{key}: got an empty {'name' if isinstance(value, str) else 'list'}; {advice}")

    return rule


def betas_of_adam(key: str, betas: Sequence[float]) -> None:
    """Raises UserError unless `betas` are two numbers in [0, 1)."""
    if len(betas) != 2:
        raise UserError(f"{key}: got {betas}; it takes two numbers, as [0.9, 0.999]")
    for beta in betas:
        within(key, beta, at_least=0, below=1)


def name_of_device(key: str, device: str) -> None:
    """Raises UserError unless `device` is auto, or a device of torch's."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", device):
        one_of(key, device, ("auto", "cpu", "cuda", "cuda:N", "mps"))


def length_of_training(epochs: float | None, steps: int | None) -> None:
    """Raises UserError unless train.epochs or train.steps says how long to train."""
    if epochs is None and steps is None:
        raise UserError("train.epochs, train.steps: got null and null; set one of them (steps wins over epochs)")
