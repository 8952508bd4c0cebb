"""Rules for settings, attached to the fields of a schema, and `check_values`, which applies them to a whole config.

An error is one line that names the key, its value, and what is allowed.
"""

import difflib
import functools
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import field, fields, is_dataclass
from typing import Any

from omegaconf import MISSING

from loralab.errors import UserError

__all__ = [
    "FP32", "added_later", "betas_of_adam", "brief", "check_rates", "check_values", "choice", "cut",
    "drop_added", "file_name", "folder", "leave_rows_to_train_on", "length_of_training", "name_of_device",
    "not_empty", "number", "one_of", "setting", "single_precision", "unescaped", "within",
]  # fmt: skip

FP32 = (1.18e-38, 3.4e38)
"""The smallest normal and the largest number of fp32, in which the optimizer computes."""
# Bytes of one name on every file system in use, less what is added to a run's name (a hash, `.lock`, `.tmp`).
_LONGEST_NAME = 200
_LONGEST_PART = 255
_LONGEST_PATH = 3000  # Linux has 4096, of which a run's files need some
# Names that Windows keeps for devices, whatever follows a dot; a store may lie on a disk that it shares.
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)

Rule = Callable[[str, Any], None]
"""A function of a dotted key and its value that raises UserError for a value that is not allowed."""


def number(
    *,
    at_least: float | None = None,
    above: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
    default: Any = MISSING,
) -> Any:
    """A field for a finite number in the range."""
    rule = functools.partial(within, at_least=at_least, above=above, below=below, at_most=at_most)
    return setting(rule, default=default)


def choice(*allowed: str, default: Any = MISSING) -> Any:
    """A field for one of the `allowed` strings."""
    return setting(functools.partial(one_of, allowed=allowed), default=default)


def setting(rule: Rule, *, default: Any = MISSING) -> Any:
    """A field checked by `rule` unless its value is null; `default` is for stored configs without its node."""
    return field(default=default, metadata={"rule": rule})


def added_later(declared: Any, *, before: Any) -> Any:
    """A field added after runs were stored; `before` is the value that reproduces their behaviour.

    A stored config without the key gets this value. A run with this value keeps the hash that it had without the key.
    """
    metadata = {**declared.metadata, "before": before}
    if isinstance(before, (dict, list)):  # which a dataclass does not take as a default
        return field(default_factory=before.copy, metadata=metadata)
    return field(default=before, metadata=metadata)


def check_values(config: Any, node: str = "") -> None:
    """Raises UserError for the first value that its field's rule refuses; a node's fields first, then its children."""
    for each in fields(config):
        rule, value = each.metadata.get("rule"), getattr(config, each.name)
        if rule is not None and value is not None:
            rule(f"{node}{each.name}", value)
    for each in fields(config):
        value = getattr(config, each.name)
        if is_dataclass(value):
            check_values(value, f"{node}{each.name}.")


def drop_added(values: dict[str, Any], config: Any) -> None:
    """Deletes from `values`, the dictionary of `config`, every `added_later` key whose value is its `before`."""
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
    key: str,
    value: float,
    *,
    at_least: float | None = None,
    above: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
) -> None:
    """Raises UserError unless `value` is a finite number in the range."""
    limits: list[tuple[Any, str, bool]] = [
        (at_least, "at least", at_least is None or value >= at_least),
        (above, "above", above is None or value > above),
        (below, "below", below is None or value < below),
    ]
    if at_most is not None and value > at_most:  # said only to a value beyond it: it is far from all use
        limits.append((at_most, "at most", False))
    if not all(ok for _, _, ok in limits) or value != value or value in (float("inf"), float("-inf")):
        allowed = " and ".join(f"{word} {limit}" for limit, word, _ in limits if limit is not None)
        raise UserError(f"{key}: got {value}; it must be a {f'number {allowed}' if allowed else 'finite number'}")


def not_empty(advice: str) -> Rule:
    """The rule that a string or a list is not empty; `advice` ends the error's line."""

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


def single_precision(key: str, value: float) -> None:
    """Raises UserError unless fp32 holds the positive number `value` as such: neither as 0 nor as infinity."""
    if not FP32[0] <= value <= FP32[1]:
        raise UserError(f"{key}: got {value:g}; the optimizer computes in fp32, from {FP32[0]:g} to {FP32[1]:g}")


def check_rates(rates: Mapping[str, float], *, betas: Sequence[float], eps: float, weight_decay: float) -> None:
    """Raises UserError unless AdamW's products of these rates are numbers of fp32, neither 0 nor infinite.

    rates: what each is called -> a learning rate. AdamW divides it by 1 - beta_1 in the first step.
    """
    single_precision("optim.eps", eps)
    for name, rate in rates.items():
        single_precision(name, rate)
        single_precision(f"{name} / (1 - optim.betas[0])", rate / (1 - betas[0]))
        if weight_decay:
            within(f"{name} * optim.weight_decay", rate * weight_decay, at_most=FP32[1])


def file_name(key: str, name: str) -> None:
    """Raises UserError unless `name` is the plain name of one file or folder on every system."""
    plain = re.fullmatch(r"\w[\w.-]*", name) and not name.endswith(".") and not _DEVICES.fullmatch(name)
    if not plain or len(name.encode()) > _LONGEST_NAME:
        raise UserError(
            f"{key}: got {brief(name)}; it names a folder: letters, digits, _ - and ., not first or last a dot, "
            f"at most {_LONGEST_NAME} bytes, no name of a device"
        )


def folder(advice: str) -> Rule:
    """The rule that a string is a path whose parts a file system takes; `advice` ends the line of an empty one."""
    some = not_empty(advice)

    def rule(key: str, path: str) -> None:
        some(key, path)
        sizes = [len(os.fsencode(part)) for part in path.split("/")]
        if "\0" in path or max(sizes) > _LONGEST_PART or len(os.fsencode(path)) > _LONGEST_PATH:
            raise UserError(
                f"{key}: got {brief(path)}; a path has at most {_LONGEST_PATH} bytes, each of its parts at most "
                f"{_LONGEST_PART}, and no zero byte"
            )

    return rule


def name_of_device(key: str, device: str) -> None:
    """Raises UserError unless `device` is auto or a torch device."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", device):
        one_of(key, device, ("auto", "cpu", "cuda", "cuda:N", "mps"))


def unescaped(text: str) -> str:
    """The text with its typed \\n and \\t as a new line and a tab: a shell's quotes keep the backslash."""
    return text.replace("\\n", "\n").replace("\\t", "\t")


def brief(value: object, longest: int = 60) -> str:
    """The value as Python writes it, cut in the middle: for a line about a value of any length."""
    text = repr(value)
    return text if len(text) <= longest else f"{text[: longest - 15]}...{text[-12:]}"


def cut(text: str, most: int = 60) -> str:
    """The beginning of the text, at most this many bytes: for a part of a folder's name, which has 255."""
    return text.encode(errors="ignore")[:most].decode(errors="ignore")


def length_of_training(epochs: float | None, steps: int | None) -> None:
    """Raises UserError where both train.epochs and train.steps are null."""
    if epochs is None and steps is None:
        raise UserError("train.epochs, train.steps: got null and null; set one of them (steps wins over epochs)")


def leave_rows_to_train_on(validation: float | None, test: float | None) -> None:
    """Raises UserError where the shares of task.validation_share and task.test_share leave no rows to train on."""
    if (validation or 0) + (test or 0) >= 1:
        raise UserError(
            f"task.validation_share, task.test_share: got {validation} and {test}; together they must be below 1, to "
            "leave rows to train on"
        )
