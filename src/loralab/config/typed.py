"""A composed configuration -> the dataclasses of its schema, interpolations resolved and every value's type checked.

OmegaConf checks a value when it is set, but not what an interpolation gives in the place of a list or of a whole node.
So all values are checked here, once.
"""

from dataclasses import fields, is_dataclass
from types import NoneType
from typing import Any, TypeVar, cast, get_args, get_origin

from omegaconf import MISSING, DictConfig, OmegaConf

from loralab.config.checks import brief
from loralab.config.keys import expected, no_such_key, type_of
from loralab.errors import UserError

__all__ = ["typed", "value_of"]

Schema = TypeVar("Schema")


def typed(composed: DictConfig, schema: type[Schema]) -> Schema:
    """The composed config as the schema's dataclass.

    Raises UserError for an unknown key, which OmegaConf takes after a `+`, and for a value of another type; what
    OmegaConf raises for a value that is missing or cannot be resolved.
    """
    _only_known(OmegaConf.to_container(composed), "", schema)  # before the values: an unknown key may be any value
    values = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    built: Schema = _Values(schema).node("", values)
    return built


def value_of(key: str, value: Any, schema: type) -> Any:
    """A value for one key, as `typed` would have it; raises UserError for one of another type."""
    return _Values(schema)._value(key, type_of(key, schema), value)


class _Values:
    """The values of one schema, by their dotted keys."""

    def __init__(self, schema: type) -> None:
        self.schema = schema

    def node(self, key: str, values: Any) -> Any:
        made: Any = type_of(key, self.schema)
        if not isinstance(values, dict):
            raise self._wrong(key, values)
        _only_known(values, key, self.schema)
        given = {}
        for each in fields(made):
            name = f"{key}.{each.name}" if key else each.name
            if each.name in values:
                given[each.name] = self._value(name, type_of(name, self.schema), values[each.name])
            elif is_dataclass(type_of(name, self.schema)) or each.default == MISSING:
                raise UserError(f"{name}: has no value; give it one")
        return made(**given)

    def _value(self, key: str, annotation: Any, value: Any) -> Any:
        if is_dataclass(annotation):
            return self.node(key, value)
        options = [option for option in get_args(annotation) if option is not NoneType]
        if NoneType in get_args(annotation):
            return None if value is None else self._value(key, options[0], value)
        if get_origin(annotation) is list:
            if not isinstance(value, list):
                raise self._wrong(key, value)
            return [self._plain(key, options[0], each, whole=value) for each in value]
        if get_origin(annotation) is dict:
            if not isinstance(value, dict):
                raise self._wrong(key, value)
            return {
                self._plain(key, options[0], name, whole=value): self._plain(f"{key}.{name}", options[1], each)
                for name, each in value.items()
            }
        if len(options) > 1:
            return self._number_or_text(key, value)
        return self._plain(key, annotation, value)

    def _number_or_text(self, key: str, value: Any) -> float | str:
        """A number as a float, also one in quotes; other text as it is, for the setting's rule."""
        if type(value) not in (int, float, str):
            raise self._wrong(key, value)
        try:
            return float(value)
        except (ValueError, OverflowError):
            return cast(str, value)

    def _plain(self, key: str, wanted: type, value: Any, *, whole: Any = None) -> Any:
        """A number, string or truth value; whole: the list or mapping that it is in, for the error."""
        if wanted is float and type(value) is int:
            return float(value)
        if type(value) is not wanted:
            raise self._wrong(key, value if whole is None else whole)
        return value

    def _wrong(self, key: str, value: Any) -> UserError:
        return UserError(f"{key}: got {brief(value)}; it must be {expected(key, self.schema)}")


def _only_known(values: Any, node: str, schema: type) -> None:
    for name, value in values.items():
        key = f"{node}.{name}" if node else str(name)
        if type_of(key, schema) is None:
            raise UserError(no_such_key(key, schema))
        if is_dataclass(type_of(key, schema)) and isinstance(value, dict):
            _only_known(value, key, schema)
