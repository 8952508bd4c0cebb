"""What sweeps/<study>.yaml says under hydra.sweeper, checked: its axes, arms, second stage and smoke size."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from loralab.config.overrides import listed, name_of, read, to_override
from loralab.errors import UserError

__all__ = ["Axis", "Confirm", "Spec"]


@dataclass(frozen=True)
class Axis:
    """One key with its values, or several that vary together with rows of their values.

    keys: as they are written, perhaps with a +; rows: one value a key.
    """

    keys: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    @classmethod
    def single(cls, key: str, values: Sequence[Any]) -> "Axis":
        return cls((key,), tuple((value,) for value in values))

    @property
    def names(self) -> tuple[str, ...]:
        """The keys without +."""
        return tuple(key.lstrip("+") for key in self.keys)

    def meets(self, names: Sequence[str]) -> bool:
        return not set(self.names).isdisjoint(names)

    def column(self, name: str) -> list[str]:
        """The values of one of the keys as text; none where the axis does not have it."""
        return [to_override(row[self.names.index(name)]) for row in self.rows if name in self.names]

    def narrowed(self, name: str, to: "Axis") -> "Axis":
        """Only the rows whose value of `name` is among those of `to`."""
        if name not in self.names:
            return self
        kept = zip(self.rows, self.column(name), strict=True)
        return replace(self, rows=tuple(row for row, text in kept if text in to.column(name)))

    def texts(self) -> list[tuple[str, ...]]:
        """The overrides of each row."""
        return [tuple(f"{k}={to_override(v)}" for k, v in zip(self.keys, row, strict=True)) for row in self.rows]


@dataclass(frozen=True)
class Confirm:
    """The second stage: one configuration for each combination of `by`, the best by `select`, on fresh `params`."""

    by: tuple[str, ...]
    select: str
    params: tuple[Axis, ...]


@dataclass(frozen=True)
class Spec:
    """A grid as its file has it. study: text for people (claim, metric, command, cost), and `program`."""

    study: dict[str, str]
    params: tuple[Axis, ...]
    arms: tuple[tuple[Axis, ...], ...]
    confirm: Confirm | None
    smoke: tuple[Axis, ...]

    @property
    def program(self) -> str | None:
        """What measures a study that is no training grid (`analysis/toy_linear.py`); None where runs are trained."""
        return self.study.get("program")

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> "Spec":
        """From the plain mapping at hydra.sweeper, where each part may be left out; UserError names what is wrong."""
        where = "hydra.sweeper"
        study = _texts(mapping.get("study"), f"{where}.study")
        for key in ("params", "arms", "confirm", "smoke"):
            if "program" in study and mapping.get(key):
                raise UserError(
                    f"{where}.{key}: has no use beside {where}.study.program, which trains nothing; remove one"
                )
        params = _axes(mapping.get("params"), f"{where}.params")
        listed_arms = mapping.get("arms")
        if not isinstance(listed_arms, (list, tuple, type(None))):
            raise UserError(f"{where}.arms: got {listed_arms!r}; it is a list of mappings, as - {{lora.ratio: 1}}")
        arms = tuple(_axes(arm, f"{where}.arms[{i}]") for i, arm in enumerate(listed_arms or ()))
        for i, arm in enumerate(arms):
            for name in _names(arm):
                if name in _names(params):
                    raise UserError(f"{where}.arms[{i}].{name}: is in params too; a key stands in one of them")
        confirm = mapping.get("confirm")
        return cls(
            study=study,
            params=params,
            arms=arms,
            confirm=_confirm(confirm, {*_names(params), *_names(chain(*arms))}) if confirm else None,
            smoke=_axes(mapping.get("smoke"), f"{where}.smoke"),
        )


def _confirm(given: Any, axes: set[str]) -> Confirm:
    where = "hydra.sweeper.confirm"
    parts = _mapping(given, where)
    for key in parts:
        if key not in ("by", "select", "params"):
            raise UserError(f"{where}.{key}: no such key; it has by, select, params{_near(key, ('select', 'params'))}")
    by, select = parts.get("by"), parts.get("select")
    if not isinstance(by, (list, tuple)):
        raise UserError(f"{where}.by: got {by!r}; it is a list of axes, as [task, lora.ratio]")
    for name in by:
        if name not in axes:
            raise UserError(f"{where}.by: {name!r} is no axis of params or arms{_near(str(name), sorted(axes))}")
    if not (isinstance(select, str) and select.partition("/")[2]):
        raise UserError(f"{where}.select: got {select!r}; it is a metric of a split, as validation/loss")
    params = _axes(parts.get("params"), f"{where}.params")
    if not params:
        raise UserError(f"{where}.params: names no axis; fresh seeds are written params: {{seed: 'range(100,105)'}}")
    for name in by:
        if name in _names(params):
            raise UserError(f"{where}.by: {name} is among the fresh values of {where}.params; it cannot be both")
    return Confirm(tuple(by), select, params)


def _axes(given: Any, where: str) -> tuple[Axis, ...]:
    found: list[Axis] = []
    for key, value in _mapping(given, where).items():
        axis = _axis(key, value, f"{where}.{key}")
        for name in axis.names:
            if name in _names(found) or axis.names.count(name) > 1:
                raise UserError(f"{where}.{key}: {name} is there twice; a key stands in one axis")
        found.append(axis)
    return tuple(found)


def _axis(key: str, value: Any, where: str) -> Axis:
    keys = tuple(part.strip() for part in key.split(","))
    for part in keys:
        _check_key(part, where)
    if len(keys) == 1:
        return Axis.single(key, listed(value, key, where))
    rows = listed(value, "rows", where)
    for row in rows:
        if not (isinstance(row, (list, tuple)) and len(row) == len(keys)):
            raise UserError(f"{where}: got {row!r}; it takes lists of {len(keys)} values, as [[1, 1], [8, 8]]")
    return Axis(keys, tuple(tuple(row) for row in rows))


def _check_key(key: str, where: str) -> None:
    from hydra.errors import OverrideParseException

    try:
        override = read(f"{key}=0")
    except OverrideParseException as error:
        raise UserError(f"{where}: {key!r} is no key; an axis has a dotted key or a group, as lora.rank") from error
    if override.is_hydra_override() or name_of(override) in ("sweeps", "") or override.is_delete():
        raise UserError(f"{where}: cannot be an axis; write it at its own place in the file, or on the command line")


def _mapping(given: Any, where: str) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise UserError(f"{where}: got {given!r}; it is a mapping from keys to values, as {{lora.rank: [4, 8]}}")
    return {str(key): value for key, value in given.items()}


def _texts(given: Any, where: str) -> dict[str, str]:
    found = _mapping(given, where)
    for key, value in found.items():
        if not isinstance(value, str):
            raise UserError(f"{where}.{key}: got {value!r}; it is a text")
    return found


def _names(axes: Sequence[Axis] | Iterator[Axis]) -> list[str]:
    return [name for axis in axes for name in axis.names]


def _near(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]}?" if near else ""
