"""Which of Hydra's own settings (`hydra.*`) a configuration may have: none that runs code, each of its type.

Hydra makes an object of whatever a `_target_` names, imports what logging settings name, and reads configs from
any package, which it imports. A configuration may come from another person, so that only what Hydra, its launchers
and loralab ship is let through. Everything is checked before Hydra acts on it.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from loralab.config.checks import brief, folder, one_of
from loralab.errors import UserError

__all__ = ["check_hydra", "check_package"]

_ENDS = "loralab starts only what Hydra, its launchers and loralab itself bring; remove it"
# Keys by which Hydra or Python's logging make objects.
_MAKES = ("_target_", "_args_", "_partial_", "_recursive_", "_convert_", "()", ".")
# What a logging setting may name as `class`, and as a stream.
_LOGGING = (
    "logging.StreamHandler", "logging.FileHandler", "logging.NullHandler", "logging.Formatter",
    "logging.handlers.RotatingFileHandler", "logging.handlers.TimedRotatingFileHandler",
)  # fmt: skip
_STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
# The one object that a logging config of a plugin makes (hydra-colorlog).
_COLOURS = ("()", "colorlog.ColoredFormatter")
# The file in that plugin's config.
_LOG = "${hydra.job.name}.log"
# Text before an interpolation that could become `ext://...`, which logging imports; all other text is only text.
_SCHEME = re.compile(r"[a-z]*(:/{0,2})?")
# Variables that say which programs or libraries a child process runs, such as git, whose own settings name programs.
_PROGRAMS = re.compile(
    r"(PATH|HOME|XDG_CONFIG_HOME|ENV|BASH_ENV|SHELL|(GIT|LD|DYLD|WANDB_)_\w+|PYTHON\w+)", re.IGNORECASE
)


def check_hydra(composed: DictConfig, plugins: Mapping[str, Collection[str]]) -> None:
    """Raises UserError where the composed `hydra` node would run code, or has a value that Hydra trips over.

    plugins: "launcher" and "sweeper" -> the classes that Hydra found in its own package and in `hydra_plugins`;
    "parts" -> what the configs that they registered name as a `_target_`, such as a sampler of Optuna.
    """
    hydra: Any = composed.get("hydra")
    if not isinstance(hydra, DictConfig):
        return
    raw: Any = OmegaConf.to_container(hydra, resolve=False)
    if raw.get("callbacks"):
        raise UserError(f"hydra.callbacks: got {brief(raw['callbacks'])}; {_ENDS}")
    for node in ("job", "run", "runtime", "sweep"):
        if not isinstance(raw.get(node), dict):
            raise UserError(f"hydra.{node}: got {brief(raw.get(node))}; set its keys")
    for node in ("launcher", "sweeper"):
        _check_plugin(hydra, node, plugins[node], plugins["parts"])
    if raw["runtime"].get("output_dir", "???") != "???":
        raise UserError("hydra.runtime.output_dir: Hydra sets it; set hydra.run.dir or hydra.sweep.dir")
    for node in ("job_logging", "hydra_logging"):
        if node in raw:
            _check_logging(raw[node], f"hydra.{node}", named=":" not in str(raw["job"].get("name")))
    _check_variables(raw["job"].get("env_set"))
    _check_verbose(raw.get("verbose"))
    for node, key in (("run", "dir"), ("sweep", "dir"), ("sweep", "subdir")):
        path = raw[node].get(key)
        if isinstance(path, str) and "${" not in path:
            folder("it is a folder")(f"hydra.{node}.{key}", path)


def check_package(path: str) -> None:
    """Raises UserError unless configs of the package `path` (`pkg://`) come from Hydra or from one of its plugins."""
    if not re.fullmatch(r"hydra(_plugins)?(\.\w+)+", path):
        raise UserError(
            f"hydra.searchpath: got pkg://{path}, and a package's code runs when it is searched; name a folder, "
            "as file:///path/to/configs"
        )


def _check_plugin(hydra: DictConfig, node: str, allowed: Collection[str], parts: Collection[str]) -> None:
    where = f"hydra.{node}"
    values: Any = hydra._get_node(node)
    if values is None or OmegaConf.is_missing(hydra, node):
        return
    plain = OmegaConf.to_container(values, resolve=True) if isinstance(values, DictConfig) else values._value()
    if not isinstance(plain, dict):
        raise UserError(f"{where}: got {brief(plain)}; choose one as hydra/{node}=NAME, and set its keys")
    one_of(f"{where}._target_", str(plain.pop("_target_", None)), sorted(allowed))
    for key, value in _pairs(plain, where):
        name = key.rpartition("/")[2]
        if name in _MAKES and not (name == "_target_" and value in parts):
            raise UserError(f"{key.replace('/', '.')}: {_ENDS}")


def _check_variables(values: Any) -> None:
    where = "hydra.job.env_set"
    if not isinstance(values, dict):
        raise UserError(f"{where}: got {brief(values)}; write it as {where}={{NAME:VALUE}}")
    for name, value in values.items():
        if not name or "=" in name or "\0" in f"{name}{value}":
            raise UserError(f"{where}: got {brief({name: value})}; a variable has a name, and no zero byte")
        if _PROGRAMS.fullmatch(name):
            raise UserError(f"{where}: got {name}, which chooses what programs are run; set it in your shell")


def _check_logging(values: Any, where: str, *, named: bool) -> None:
    """named: whether the job's name cannot begin an address as `ext://`."""
    option = where.replace(".", "/")
    if values is not None and not isinstance(values, dict):
        raise UserError(f"{where}: got {brief(values)}; choose one as {option}=default, or {option}=none")
    if values and ("root" not in values or "version" not in values):
        raise UserError(
            f"{where}: got {brief(values)}, without version and root; choose {where.replace('.', '/')}=none"
        )
    for key, value in _pairs(values, where):
        name = key.rpartition("/")[2]
        shown = key.replace("/", ".")
        if (name in _MAKES and (name, value) != _COLOURS) or (name == "class" and value not in _LOGGING):
            raise UserError(f"{shown}: got {brief(value)}; {_ENDS}")
        if isinstance(value, str) and not (value in _STREAMS or (named and value == _LOG) or _is_text(value)):
            raise UserError(f"{shown}: got {brief(value)}; {_ENDS}, or write the value out")


def _is_text(value: str) -> bool:
    """Whether logging reads the value as text, whatever its interpolations give, rather than as an address."""
    before, braces, _ = value.partition("${")
    if "://" in value or not braces:
        return "://" not in value
    return value.startswith("${hydra.runtime.output_dir}/") or not _SCHEME.fullmatch(before)


def _check_verbose(value: Any) -> None:
    names = value if isinstance(value, list) else [value]
    if value is not None and not isinstance(value, bool) and all(isinstance(name, str) for name in names):
        return
    if not isinstance(value, bool):
        raise UserError(f"hydra.verbose: got {brief(value)}; it must be true, false, or names of loggers, as [a,b]")


def _pairs(values: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Every key below `where`, its last part behind a slash, and its value; elements of lists too."""
    named = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for name, value in named:
        yield f"{where}/{name}", value
        yield from _pairs(value, f"{where}.{name}")
