"""Hydra's and OmegaConf's exceptions -> one line that names the key, what was got, and what is allowed."""

import difflib
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_type_hints

from hydra.errors import HydraException, MissingConfigException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException, ValidationError

from loralab.config import Config
from loralab.errors import UserError

__all__ = ["explain"]


def explain(error: BaseException) -> str | None:
    """The line for a user's mistake, or None where the exception is not one."""
    for cause in _chain(error):
        if isinstance(cause, UserError):
            return str(cause)
        if isinstance(cause, MissingConfigException):
            return _missing_option(cause)
        if isinstance(cause, ValidationError):
            return _wrong_type(cause)
        if isinstance(cause, (ConfigKeyError, ConfigAttributeError)) and cause.full_key:
            return _unknown_key(cause.full_key)
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        text = _one_line(str(error))
        if found := re.search(r"Could not override '([^']+)'", text):
            return _unknown_key(found[1])
        return text
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The innermost cause first: it knows the key."""
    causes = [error]
    while (inner := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(inner)
    return reversed(causes)


def _unknown_key(key: str) -> str:
    node, name = key.rpartition(".")[::2]
    allowed = _keys(node)
    if allowed is None:
        return f"{key}: no such key; `python train.py --cfg job` prints them all"
    near = difflib.get_close_matches(name, allowed, n=1)
    hint = f"; did you mean {f'{node}.{near[0]}' if node else near[0]}?" if near else ""
    return f"{key}: no such key; {node or 'the configuration'} has {', '.join(allowed)}{hint}"


def _wrong_type(error: ValidationError) -> str:
    text = _one_line(str(error.msg or error))
    kind = re.search(r"could not be converted to (\w+)", text)
    value = re.search(r"[Vv]alue '?(.*?)'? (?:of type|could not|is not)", text)
    words = {"Integer": "an integer", "Float": "a number", "Boolean": "true or false", "String": "a string"}
    key = error.full_key or "the configuration"
    if kind and value:
        return f"{key}: got {value[1]!r}; it must be {words.get(kind[1], kind[1])}"
    if "not Optional" in text or "NoneType" in text:
        return f"{key}: got null; it must have a value"
    return f"{key}: {text}"


def _missing_option(error: MissingConfigException) -> str:
    group, _, wanted = (error.missing_cfg_file or "").partition("/")
    options = list(error.options or ())
    if not options:
        return _one_line(str(error))
    near = difflib.get_close_matches(wanted, options, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"{group}: got {wanted!r}; allowed: {', '.join(options)}{hint}"


def _keys(node: str) -> list[str] | None:
    """The keys of a dotted node of the schema, None where there is no such node."""
    schema: Any = Config
    for part in filter(None, node.split(".")):
        hints = get_type_hints(schema)
        if part not in hints:
            return None
        schema = next((t for t in (hints[part], *get_args(hints[part])) if is_dataclass(t)), None)
        if schema is None:
            return None
    return [f.name for f in fields(schema)]


def _one_line(text: str) -> str:
    return " ".join(line.strip() for line in text.splitlines() if line.strip())
