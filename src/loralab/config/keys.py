"""The dotted keys of a configuration's dataclasses and their types, for runs and pretrainings."""

import difflib
import functools
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

from omegaconf import DictConfig, OmegaConf

from loralab.errors import UserError

__all__ = ["config_values", "keys", "no_such_key", "refuse_unknown", "type_of"]


def type_of(key: str, schema: type) -> Any:
    """The annotation of a dotted key ("" is the whole schema), None where there is no such key."""
    found: Any = schema
    for part in filter(None, key.split(".")):
        found = _hints(found).get(part) if isinstance(found, type) and is_dataclass(found) else None
    return found


def config_values(node: Any) -> Any:
    """A copy of a configuration, or of a node, as nested dicts and lists (as dataclasses.asdict)."""
    if is_dataclass(node):
        return {f.name: config_values(getattr(node, f.name)) for f in fields(node)}
    if isinstance(node, dict):
        return {key: config_values(value) for key, value in node.items()}
    if isinstance(node, list):
        return [config_values(value) for value in node]
    return node


def keys(schema: type, node: str = "") -> Iterator[str]:
    """Every dotted key of a schema, or of one of its nodes; a node comes before its keys."""
    for name in _names(type_of(node, schema)):
        key = f"{node}.{name}" if node else name
        yield key
        if is_dataclass(type_of(key, schema)):
            yield from keys(schema, key)


def no_such_key(key: str, schema: type) -> str:
    """The line for a dotted key that the schema lacks: the keys of its node, and the nearest key."""
    node, _, name = key.rpartition(".")
    every = list(keys(schema))
    namesakes = [k for k in every if k.rpartition(".")[2] == name]
    near = namesakes if len(namesakes) == 1 else difflib.get_close_matches(key, every, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    known = is_dataclass(type_of(node, schema))
    of = node if known else ""
    has = f"{of or 'the configuration'} has {', '.join(_names(type_of(of, schema)))}"
    return f"{key}: no such key; {has}{hint}"


@functools.cache  # sweeps check thousands of configs
def _hints(schema: type) -> dict[str, Any]:
    return get_type_hints(schema)


def _names(schema: Any) -> list[str]:
    return [f.name for f in fields(schema)]


def refuse_unknown(composed: DictConfig, schema: type) -> None:
    """Raises UserError for an unknown key that was added with `+`, which OmegaConf accepts."""
    _only_known(OmegaConf.to_container(composed), "", schema)


def _only_known(values: Any, node: str, schema: type) -> None:
    for name, value in values.items():
        key = f"{node}.{name}" if node else str(name)
        if type_of(key, schema) is None:
            raise UserError(no_such_key(key, schema))
        if is_dataclass(type_of(key, schema)) and isinstance(value, dict):
            _only_known(value, key, schema)
