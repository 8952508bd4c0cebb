"""The space of a search over any keys: its axes, read from `KEY=log(a,b)`, `uniform(a,b)`, `int(a,b)` or `[x,y,z]`."""

import difflib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from omegaconf import DictConfig

from loralab.config.checks import brief
from loralab.config.keys import no_such_key, type_of
from loralab.config.overrides import read, to_override, values_of
from loralab.config.schema import Config, from_hydra
from loralab.config.typed import value_of
from loralab.errors import UserError

__all__ = ["Axis", "Space", "check", "holds", "read_space"]

_GROUPS = ("model", "method")
"""Groups whose options are compared by one loss, that of one task."""
# Keys that are no setting of a run, or that change what the loss is measured on.
_REFUSED = {
    **dict.fromkeys(("seed", "init_seed", "data_seed"), "seeds are repeats; --seeds N trains the best on N of them"),
    **dict.fromkeys(("task", "generate"), "losses of different tasks are not compared; tune one task at a time"),
    **dict.fromkeys(("store", "tracker", "sweeps", "probe"), "it does not change the loss; set it with the command"),
    **dict.fromkeys(
        ("train.pause_at", "train.eval_every", "train.eval_first", "train.log_every", "train.checkpoint_seconds"),
        "the search sets what is validated and when; take another key",
    ),
    **dict.fromkeys(
        ("train.device", "train.threads", "train.micro_batch_size", "model.name", "name", "tags", "train.again"),
        "it does not change the loss; set it with the command",
    ),
}
_FORMS = ("log", "uniform", "int")
_ELSEWHERE = {
    "loguniform": "log", "log_uniform": "log", "logspace": "log", "lograndint": "log", "float": "uniform",
    "interval": "uniform", "quniform": "uniform", "randint": "int", "range": "int",
}  # fmt: skip
_CALL = re.compile(r"\s*(\w+)\s*\((.*)\)\s*")
_DIGITS = 3  # of a drawn number: 1.37e-3 is as good as 1.3712e-3, and a person can type it
MOST_CHOICES = 100
NEAR_AN_END = 0.05  # of an axis' length, on its scale


@dataclass(frozen=True)
class Axis:
    """A key and the values it may take: numbers from low to high, or one of `choices`.

    form: log (even in the logarithm), uniform, int or choice; whole: only whole numbers; a list among the choices is a
    tuple, so that settings can be keys of a mapping.
    """

    key: str
    form: Literal["log", "uniform", "int", "choice"]
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[Any, ...] = ()
    whole: bool = False

    @property
    def text(self) -> str:
        """As it is written; equal axes have equal texts."""
        if self.form == "choice":
            return f"{self.key}={to_override(self.choices)}"
        return f"{self.key}={self.form}({to_override(self.low)},{to_override(self.high)})"

    @property
    def tried(self) -> tuple[Any, ...]:
        """Its ends, or all its choices: what is composed before the first trial."""
        return self.choices if self.form == "choice" else (self.rounded(self.low), self.rounded(self.high))

    def rounded(self, drawn: float) -> float | int:
        """A drawn number to 3 significant digits, or to a whole one, inside the ends."""
        if self.whole:
            return round(drawn)
        return min(self.high, max(self.low, float(f"{drawn:.{_DIGITS}g}")))

    def contains(self, value: Any) -> bool:
        """Whether a run with this value lies on the axis."""
        if self.form == "choice":
            return to_override(value) in map(to_override, self.choices)
        if isinstance(value, bool) or not isinstance(value, int | float) or (self.whole and value != int(value)):
            return False
        return self.low <= value <= self.high

    def is_near_an_end(self, value: Any) -> bool:
        """Whether a wider axis might have something better."""
        if self.form == "choice":
            return False
        scale: Callable[[float], float] = math.log if self.form == "log" else float
        low, high, at = scale(self.low), scale(self.high), scale(value)
        return min(at - low, high - at) <= NEAR_AN_END * (high - low)


Space = tuple[Axis, ...]


def read_space(specs: Sequence[str]) -> Space:
    """The axes of `--space KEY=SPEC ...`, sorted by key. Raises UserError, with the nearest fix, for any other form."""
    axes = [_axis(spec) for spec in specs]
    if not axes:
        raise UserError("--space: got nothing; name at least one key, as --space optim.lr=log(1e-4,1e-2)")
    keys = [axis.key for axis in axes]
    for key in keys:
        if keys.count(key) > 1:
            raise UserError(f"--space: got {key} twice; give it once")
    return tuple(sorted(axes, key=lambda axis: axis.key))


def check(space: Space, compose: Callable[[Sequence[str]], DictConfig]) -> None:
    """Composes every end and every choice once, so that a value out of range costs no trial.

    compose: overrides, to be added to the command's, -> the config, such as `Composer.settings`. Raises UserError, or
    what Hydra raises, for a value that the schema refuses.
    """
    for axis in space:
        for value in axis.tried:
            from_hydra(compose([f"{axis.key}={to_override(value)}"]))


def holds(space: Space, settings: Mapping[str, Any]) -> bool:
    """Whether a run with these settings, and the command's others, lies in the space."""
    return settings.keys() == {axis.key for axis in space} and all(axis.contains(settings[axis.key]) for axis in space)


def _axis(spec: str) -> Axis:
    key, equals, text = spec.partition("=")
    key = key.strip()
    if not equals or not text.strip():
        raise UserError(f"--space: got {brief(spec)}; write KEY=log(a,b), uniform(a,b), int(a,b) or [x,y,z]")
    annotation = _type_of(key)
    call = _CALL.fullmatch(text)
    if call is None:
        return _listed(key, text.strip())
    name, bounds = call[1], call[2]
    if name not in _FORMS:
        raise _no_form(key, name, bounds)
    return _numbers(key, name, bounds, annotation)


def _type_of(key: str) -> Any:
    """The annotation of a key that can be searched; str for a group."""
    for refused, why in _REFUSED.items():
        if key == refused or (key.startswith(f"{refused}.") and refused != "model.name"):
            raise UserError(f"{key}: {why}")
    if key in _GROUPS:
        return str
    annotation = type_of(key, Config)
    if annotation is None:
        raise UserError(no_such_key(key, Config))
    if isinstance(annotation, type) and hasattr(annotation, "__dataclass_fields__"):
        raise UserError(f"{key}: is set by its keys; search one of them, as {key}.KEY=[x,y,z]")
    if get_origin(annotation) is dict:
        raise UserError(f"{key}: a mapping is not searched; set it with the command")
    return annotation


def _numbers(key: str, name: str, bounds: str, annotation: Any) -> Axis:
    got = f"{key}: got {name}({bounds})"
    kinds = _kinds(annotation)
    if not kinds & {int, float}:
        raise UserError(f"{got}; it takes no numbers: list its values, as {key}=[x,y]")
    whole = float not in kinds or name == "int"
    try:
        low, high = (float(bound) for bound in bounds.split(","))
    except ValueError:
        raise UserError(f"{got}; it takes two bounds, as {key}={_example(name, whole=whole)}") from None
    if not (math.isfinite(low) and math.isfinite(high)):
        raise UserError(f"{got}; both bounds must be finite numbers")
    if low >= high:
        fix = f"write {name}({to_override(high)},{to_override(low)})" if low > high else "set it with the command"
        raise UserError(f"{got}; the first bound must be below the second: {fix}")
    if name == "log" and low <= 0:
        raise UserError(f"{got}; bounds of log are above 0; uniform({bounds}) may reach 0")
    if whole and (low != int(low) or high != int(high)):
        raise UserError(f"{got}; both bounds must be whole numbers")
    if whole and name == "uniform":
        raise UserError(f"{got}; it takes whole numbers: write int({bounds}), or log({bounds})")
    return Axis(key, name, low, high, whole=whole)  # type: ignore[arg-type]  # one of _FORMS


def _listed(key: str, text: str) -> Axis:
    from hydra.errors import HydraException

    try:
        override = read(f"{key}={text}")
        values = values_of(override, key)
    except HydraException:
        raise UserError(f"{key}: got {brief(text)}; write log(a,b), uniform(a,b), int(a,b) or [x,y,z]") from None
    if override.is_sweep_override():
        raise UserError(f"{key}: got {brief(text)}; list values in brackets: {key}={to_override(values)}")
    (listed,) = values
    if not isinstance(listed, list):
        raise UserError(f"{key}: got {brief(text)}, one value; list several, as {key}=[x,y], or set it in the command")
    if len(listed) > MOST_CHOICES:
        raise UserError(f"{key}: got {len(listed)} values; list at most {MOST_CHOICES}, or write log(a,b) or int(a,b)")
    if get_origin(type_of(key, Config)) is list and not all(isinstance(each, list) for each in listed):
        raise UserError(f"{key}: got {brief(text)}; each choice is itself a list: {key}=[{text},...]")
    choices = tuple(_choice(key, each) for each in listed)
    texts = [to_override(choice) for choice in choices]
    for each in texts:
        if texts.count(each) > 1:
            raise UserError(f"{key}: got {brief(text)}, with {each} twice; list different values")
    if len(choices) < 2:
        raise UserError(f"{key}: got {brief(text)}; list at least two values, or set it in the command")
    return Axis(key, "choice", choices=choices)


def _choice(key: str, value: Any) -> Any:
    """A listed value of the key's type, lists as tuples."""
    if key in _GROUPS:
        if not isinstance(value, str):
            raise UserError(f"{key}: got {brief(value)}; it takes names of options, as {key}=[a,b]")
        return value
    found = value_of(key, value, Config)
    return tuple(found) if isinstance(found, list) else found


def _no_form(key: str, name: str, bounds: str) -> UserError:
    got = f"{key}: got {name}({bounds})"
    if name == "choice":
        return UserError(f"{got}; write {key}=[{bounds}]")
    near = _ELSEWHERE.get(name.lower()) or next(iter(difflib.get_close_matches(name, _FORMS, n=1)), None)
    if near is None:
        return UserError(f"{got}; write log(a,b), uniform(a,b), int(a,b) or [x,y,z]")
    return UserError(f"{got}; write {key}={near}({','.join(bounds.split(',')[:2])})")


def _example(name: str, *, whole: bool) -> str:
    return f"{name}(4,64)" if whole else "log(1e-4,1e-2)" if name == "log" else f"{name}(0,0.1)"


def _kinds(annotation: Any) -> set[Any]:
    """The types that an annotation allows: int | None -> {int, NoneType}."""
    return set(get_args(annotation)) if get_origin(annotation) in (Union, UnionType) else {annotation}
