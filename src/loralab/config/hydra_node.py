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
# The interpolations in Hydra's own logging configs; what another gives is known only when Hydra uses it.
_SHIPPED = ("${hydra.runtime.output_dir}/${hydra.job.name}.log", "hydra-${hydra.job.name}.log")


def check_hydra(composed: DictConfig, plugins: Mapping[str, Collection[str]]) -> None:
    """Raises UserError where the composed `hydra` node would run code, or has a value that Hydra trips over.

    plugins: "launcher" and "sweeper" -> the classes that Hydra found in its own package and in `hydra_plugins`.
    """
    hydra: Any = composed.get("hydra")
    if not isinstance(hydra, DictConfig):
        return
    raw: Any = OmegaConf.to_container(hydra, resolve=False)
    if raw.get("callbacks"):
        raise UserError(f"hydra.callbacks: got {brief(raw['callbacks'])}; {_ENDS}")
    for node in ("launcher", "sweeper"):
        _check_plugin(hydra, node, plugins[node])
    for node in ("job_logging", "hydra_logging"):
        if node in raw:
            _check_logging(raw[node], f"hydra.{node}")
    for name, value in raw["job"]["env_set"].items():
        if not name or "=" in name or "\0" in f"{name}{value}":
            raise UserError(f"hydra.job.env_set: got {brief({name: value})}; a variable has a name, and no zero byte")
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


def _check_plugin(hydra: DictConfig, node: str, allowed: Collection[str]) -> None:
    where = f"hydra.{node}"
    values: Any = hydra._get_node(node)
    if values is None or OmegaConf.is_missing(hydra, node):
        return
    plain = OmegaConf.to_container(values, resolve=True) if isinstance(values, DictConfig) else values._value()
    if not isinstance(plain, dict):
        raise UserError(f"{where}: got {brief(plain)}; choose one as hydra/{node}=NAME, and set its keys")
    one_of(f"{where}._target_", str(plain.pop("_target_", None)), sorted(allowed))
    for key, _ in _pairs(plain, where):
        if key.rpartition("/")[2] in _MAKES:
            raise UserError(f"{key.replace('/', '.')}: {_ENDS}")


def _check_logging(values: Any, where: str) -> None:
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
        if name in _MAKES or (name == "class" and value not in _LOGGING):
            raise UserError(f"{shown}: got {brief(value)}; {_ENDS}")
        if isinstance(value, str) and ("${" in value or "://" in value) and value not in (*_STREAMS, *_SHIPPED):
            raise UserError(f"{shown}: got {brief(value)}; {_ENDS}, or write the value out")


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
