"""Exceptions of Hydra and OmegaConf -> one line that names the key, its value, and what is allowed."""

import difflib
import re
from collections.abc import Iterator
from typing import get_origin

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, EnumNode
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    ConfigTypeError,
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    ValidationError,
)

from loralab.compat.hydra import is_hydras
from loralab.compat.submitit import lacks_slurm
from loralab.config.keys import expected, no_such_key
from loralab.config.schema import Config
from loralab.errors import UserError, explain_os_error
from loralab.text import shown

__all__ = ["explain"]

# OmegaConf's nodes -> the values that they take.
_NODES = {
    "IntegerNode": "a whole number",
    "FloatNode": "a number",
    "BooleanNode": "true or false",
    "StringNode": "a string",
    "ListConfig": "a list, as [a,b]",
    "DictConfig": "set by its keys",
}
_OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory", re.IGNORECASE)  # torch's words
# Hydra launchers in separate packages, and the commands that install them.
_PLUGINS = {
    "submitit_slurm": "pip install -e '.[slurm]'",
    "submitit_local": "pip install -e '.[slurm]'",
    "ray": "pip install -e '.[ray]' && pip install --no-deps hydra-ray-launcher",
}


def explain(error: BaseException, schema: type = Config) -> str | None:
    """The line for a user's mistake; None for any other exception. schema: of the command's configuration.

    Only the type of the exception itself counts: an exception raised while handling a user's mistake is a bug.
    """
    line = _explained(error, schema)
    return None if line is None else shown(line)


def _explained(error: BaseException, schema: type) -> str | None:
    if isinstance(error, UserError):
        return str(error)
    if (line := explain_os_error(error)) is not None:  # Hydra's MissingConfigException is an OSError too
        return line
    if lacks_slurm(error):
        return "hydra/launcher: got slurm, but there is no SLURM here (no srun on the PATH)"
    if type(error) in (ValueError, AssertionError) and is_hydras(error):  # as it is for flags that do not go together
        return (
            _one_line(str(error))
            or "Hydra cannot use these settings, and gives no reason; HYDRA_FULL_ERROR=1 shows where"
        )
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(str(error))):
        return (
            "there is not enough memory; lower train.batch_size, train.max_length, or the sizes that the method adds "
            "(lora.rank, bottleneck.size, prompt.hidden), or take a smaller model"
        )
    if not isinstance(error, (HydraException, OmegaConfBaseException)):
        return None
    key, value = _override(str(error))
    for cause in _chain(error):
        line = _explain_one(cause, key, value, schema)
        if line is not None:
            return line
    texts = (_one_line(str(cause)) for cause in _chain(error))
    return _fallback(next(filter(None, texts), type(error).__name__), schema)


def _explain_one(cause: BaseException, key: str | None, value: str | None, schema: type) -> str | None:
    if isinstance(cause, MissingConfigException):
        return _missing_option(cause)
    if isinstance(cause, OverrideParseException):
        return _unreadable(cause.override)
    if not isinstance(cause, OmegaConfBaseException) or not cause.full_key:
        return None
    full_key: str = cause.full_key
    if isinstance(cause, InterpolationResolutionError):
        return f"{full_key}: {str(cause.msg or cause).splitlines()[0]}"
    if isinstance(cause, MissingMandatoryValue):
        return f"{full_key}: has no value; give it one"
    if isinstance(cause, (ConfigKeyError, ConfigAttributeError)):
        wrong = key if key is not None and key.startswith(full_key) else full_key
        return _no_hydras_key(wrong, cause) if wrong.startswith("hydra.") else no_such_key(wrong, schema)
    if isinstance(cause, ValidationError):
        return _wrong_type(full_key, value if key == full_key.partition("[")[0] else None, cause, schema)
    if isinstance(cause, ConfigTypeError) and full_key.startswith("hydra."):
        return _wrong_type(full_key, value, cause, schema)
    if isinstance(cause, ConfigTypeError) and "deletion" in str(cause):
        return f"{full_key}: cannot be removed with ~; give it a value"
    return None


def _wrong_type(full_key: str, value: str | None, cause: OmegaConfBaseException, schema: type) -> str:
    """The line for a value of the wrong type; where `full_key` is an element (optim.betas[1]), for the whole list."""
    key = full_key.partition("[")[0]
    message = str(cause.msg)
    if value is None:  # the value is from a file, not the command line
        found = re.search(r"[Vv]alue '(.*?)'", message)
        value = found[1] if found else "null" if "Optional" in message or "NoneType" in message else None
    got = "a value of the wrong type" if value is None else "nothing" if value == "" else value
    must = _of_hydra(cause) if key.partition(".")[0] == "hydra" else expected(key, schema)
    return f"{key}: got {got}; it must be {must}"


def _of_hydra(cause: OmegaConfBaseException) -> str:
    """The type of one of Hydra's own settings, in words."""
    node = cause.child_node
    if isinstance(node, EnumNode):
        return f"one of {', '.join(each.name for each in node.enum_type)}"
    if node is None:
        return "a list, as [a,b]" if get_origin(cause.ref_type) is list else "set by its keys"
    null = " or null" if node._is_optional() else ""
    return f"{_NODES.get(type(node).__name__, 'of another type')}{null}"


def _no_hydras_key(key: str, cause: ConfigKeyError | ConfigAttributeError) -> str:
    node = cause.parent_node
    names = [str(name) for name in node] if isinstance(node, DictConfig) and not node._is_none() else []
    near = difflib.get_close_matches(key.rpartition(".")[2], names, n=1)
    hint = f"; did you mean {key.rpartition('.')[0]}.{near[0]}?" if near else f"; to add it, write +{key}=VALUE"
    return f"{key}: Hydra has no such key{hint}"


def _missing_option(error: MissingConfigException) -> str:
    group, _, wanted = (error.missing_cfg_file or "").rpartition("/")
    if group == "hydra/launcher" and wanted in _PLUGINS:
        return f"hydra/launcher: {wanted} needs a plugin that is not installed; {_PLUGINS[wanted]}"
    options = list(error.options or ())
    if not group or not options:
        return _one_line(str(error))
    near = difflib.get_close_matches(wanted, options, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"{group}: got {wanted!r}; allowed: {', '.join(options)}{hint}"


def _unreadable(override: str) -> str:
    key, equals, value = override.partition("=")
    if not equals:
        return f"{override}: got no value; write KEY=VALUE, without spaces around ="
    return (
        f"{key}: got {value}, which Hydra cannot read; lists are [a,b], special characters need quotes: {key}='\"...\"'"
    )


def _override(text: str) -> tuple[str | None, str | None]:
    """Key and value of the override that the outermost exception is about."""
    found = re.search(r"Error merging override [+~]*(\S+?)=(.*)", text, re.DOTALL)
    if found:
        return found[1], found[2].strip()
    found = re.search(r"Could not override '([^']+)'", text)
    return (found[1], None) if found else (None, None)


def _fallback(text: str, schema: type) -> str:
    if found := re.search(r"Ambiguous value for argument '(.+?)=(.*?)' 1\.", text):
        return f"{found[1]}: got {found[2]}; add -m to train one run for each, or write [{found[2]}] for a list"
    if found := re.match(r"Error merging override [+~]*((?!hydra\.)[\w.]+)=(.*)", text):
        return f"{found[1]}: got {found[2]}; it must be {expected(found[1], schema)}"
    if found := re.search(r"An item is already at '([^']+)'", text):
        return f"{found[1]}: is there already; write it without +"
    if found := re.search(r"Could not override '([^'@]+)", text):
        return f"{found[1]}: is a group; set it as {found[1]}=OPTION" if "@" in text else no_such_key(found[1], schema)
    return text


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception and its causes, outermost first: OmegaConf names the key only in the outermost."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _one_line(text: str) -> str:
    return " ".join(line.strip() for line in text.splitlines() if line.strip() and "See https://" not in line)
