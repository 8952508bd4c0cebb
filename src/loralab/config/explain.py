"""Exceptions of Hydra and OmegaConf -> one line that names the key, its value, and what is allowed."""

import difflib
import re
from collections.abc import Iterator, Sequence
from types import NoneType
from typing import Any, get_args, get_origin

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    ConfigTypeError,
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    ValidationError,
)

from loralab.compat.submitit import lacks_slurm
from loralab.config.keys import no_such_key, type_of
from loralab.config.schema import Config
from loralab.errors import UserError, explain_os_error

__all__ = ["explain", "in_arguments"]

# Hydra launchers in separate packages, and the commands that install them.
_PLUGINS = {
    "submitit_slurm": "pip install -e '.[slurm]'",
    "submitit_local": "pip install -e '.[slurm]'",
    "ray": "pip install -e '.[ray]' && pip install --no-deps hydra-ray-launcher",
}
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a string"}


def explain(error: BaseException, schema: type = Config) -> str | None:
    """The line for a user's mistake; None for any other exception. schema: of the command's configuration.

    Only the type of the exception itself counts: an exception raised while handling a user's mistake is a bug.
    """
    if isinstance(error, UserError):
        return str(error)
    if (line := explain_os_error(error)) is not None:  # Hydra's MissingConfigException is an OSError too
        return line
    if lacks_slurm(error):
        return "hydra/launcher: got slurm, but there is no SLURM here (no srun on the PATH)"
    if type(error) is ValueError:  # Hydra raises plain ValueErrors for two user's mistakes
        if str(error).startswith("Config group override must be"):
            return "a group (model, task, method, tracker) takes the name of one option, not null or a number"
        return str(error) if str(error).startswith("Only one of --run, --multirun,") else None
    if not isinstance(error, (HydraException, OmegaConfBaseException)):
        return None
    key, value = _override(str(error))
    for cause in _chain(error):
        line = _explain_one(cause, key, value, schema)
        if line is not None:
            return line
    return _fallback(_one_line(str(error)), schema)


def in_arguments(arguments: Sequence[str], flags: Sequence[str], schema: type = Config) -> str | None:
    """The line for a flag that is not one of Hydra's `flags`, for which argparse would print its whole usage."""
    for argument in arguments:
        flag, _, value = argument.partition("=")
        if not argument.startswith("-") or any(option.startswith(flag) for option in flags):
            continue
        if type_of(flag.lstrip("-"), schema) is not None:
            return f"{flag}: settings are written without dashes: {flag.lstrip('-')}={value}"
        near = difflib.get_close_matches(flag, flags, n=1)
        hint = f"did you mean {near[0]}?" if near else "settings are written KEY=VALUE"
        return f"{flag}: no such flag; `--help` lists them; {hint}"
    return None


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
        return f"{wrong}: Hydra has no such key" if wrong.startswith("hydra.") else no_such_key(wrong, schema)
    if isinstance(cause, ValidationError):
        return _wrong_type(full_key, value if key == full_key.partition("[")[0] else None, str(cause.msg), schema)
    if isinstance(cause, ConfigTypeError) and "deletion" in str(cause):
        return f"{full_key}: cannot be removed with ~; give it a value"
    return None


def _wrong_type(full_key: str, value: str | None, message: str, schema: type) -> str:
    """The line for a value of the wrong type; where `full_key` is an element (optim.betas[1]), for the whole list."""
    key = full_key.partition("[")[0]
    if value is None:  # the value is from a file, not the command line
        found = re.search(r"[Vv]alue '(.*?)'", message)
        value = found[1] if found else "null" if "Optional" in message or "NoneType" in message else None
    got = "a value of the wrong type" if value is None else "nothing" if value == "" else value
    return f"{key}: got {got}; it must be {_expected(key, schema)}"


def _expected(key: str, schema: type) -> str:
    """The type that the schema requires at `key`, in words."""
    annotation = type_of(key, schema)
    if annotation is None and get_origin(mapping := type_of(key.rpartition(".")[0], schema)) is dict:
        annotation = get_args(mapping)[1]
    options = [option for option in get_args(annotation) if option is not NoneType]
    if NoneType in get_args(annotation):
        return f"{_words(key, options[0])} or null"
    return _words(key, annotation)


def _words(key: str, annotation: Any) -> str:
    if annotation in _WORDS:
        return _WORDS[annotation]
    if get_origin(annotation) is list:
        (inner,) = get_args(annotation)
        example = "[0.9,0.999]" if inner is float else "[q,v]" if key == "lora.targets" else "[a,b]"
        return f"a list, as {key}={example}"
    if get_origin(annotation) is dict:
        return f"a mapping, as {key}={{v:16}}"
    return f"set by its keys, as {key}.KEY=VALUE"


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
