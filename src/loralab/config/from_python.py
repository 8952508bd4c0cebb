"""Python arguments -> settings of the command line: `train("task=trec", model="tiny", lora={"rank": 4})`."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

from loralab.config.compose import MAPPINGS
from loralab.config.keys import type_of
from loralab.config.literal import literal
from loralab.config.overrides import to_override
from loralab.config.schema import Config
from loralab.errors import UserError

__all__ = ["axes", "settings"]


def settings(given: Sequence[str | Mapping[str, Any]], named: Mapping[str, Any]) -> list[str]:
    """KEY=VALUE for each setting; texts are taken as they are, and the keys of a mapping may be nested or dotted."""
    return [text if value is _TEXT else f"{text}={_written(value)}" for text, value in _pairs(given, named)]


def axes(given: Sequence[str | Mapping[str, Any]], named: Mapping[str, Any]) -> list[str]:
    """The same for a sweep, where several values at a key are an axis: KEY=VALUE,VALUE.

    A list or a tuple is several values; at a key whose value is a list itself, such as lora.targets, a list of lists
    is. Raises UserError for an axis without values.
    """
    found = []
    for text, value in _pairs(given, named):
        if value is _TEXT:
            found.append(text)
        elif isinstance(value, (list, tuple, range)) and _is_axis(text, value):
            if not len(value):
                raise UserError(f"{text}: got no values; list one or more")
            found.append(f"{text}={','.join(map(_written, value))}")
        else:
            found.append(f"{text}={_written(value)}")
    return found


_TEXT = object()


def _pairs(given: Sequence[str | Mapping[str, Any]], named: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Dotted key and value of each setting; an override that is a text is passed on, with _TEXT for its value."""
    for each in (*given, named):
        if isinstance(each, str):
            yield each, _TEXT
        elif isinstance(each, Mapping):
            yield from _flat(each, "")
        else:
            raise UserError(f'got {each!r}; settings are texts ("lora.rank=4"), mappings, or keywords (seed=1)')


def _flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and key not in MAPPINGS:
            yield from _flat(value, f"{key}.")
        else:
            yield key, value.tolist() if hasattr(value, "tolist") else value  # an array, or a scalar of numpy's


def _is_axis(key: str, values: Sequence[Any]) -> bool:
    of = type_of(key, Config)
    kinds = get_args(of) if isinstance(of, UnionType) else (of,)
    takes_a_list = any(get_origin(kind) is list for kind in kinds)
    return not takes_a_list or all(isinstance(value, (list, tuple)) for value in values)


def _written(value: Any) -> str:
    return to_override(literal(str(value) if isinstance(value, Path) else value))
