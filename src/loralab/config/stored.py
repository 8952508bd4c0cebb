"""A run's config.yaml -> the Config that was written there: text is literal, and the values are checked again.

Hydra is not imported, except to explain a file that is not of this version.
"""

import re
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from loralab.config.checks import check_values
from loralab.config.keys import keys, type_of
from loralab.config.literal import literal
from loralab.config.schema import Config
from loralab.errors import UserError

__all__ = ["stored_config", "stored_values"]

LARGEST = 1_000_000  # bytes; a config has about 3,000


def stored_config(file: Path) -> Config:
    """The config in `file`; a key that older versions lack gets the value that reproduces their runs.

    Raises UserError, naming the file and the key, for a file that cannot be read or is not this version's: unknown or
    missing keys, wrong types, values out of range.
    """
    values = stored_values(file)
    try:
        _nodes_are_mappings(values, Config)
        found = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), literal(values)))
        assert isinstance(found, Config)
        check_values(found)
    except OmegaConfBaseException as error:
        raise UserError(f"{file}: {_explained(error)}{_REMEDY}") from error
    except (UserError, RecursionError) as error:
        raise UserError(f"{file}: {error}{_REMEDY}") from error
    return found


_REMEDY = " (another version of loralab may have written it; read it with that version)"


def stored_values(file: Path) -> dict[str, Any]:
    """What is written in a run's config.yaml, unchecked; raises UserError where it holds no mapping."""
    try:
        if not file.is_file():
            raise UserError(f"{file}: no such file; it is written when a run starts")
        if file.stat().st_size > LARGEST:
            raise UserError(f"{file}: {file.stat().st_size:,} bytes, which no run's config has")
        values = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        if isinstance(error, UserError):
            raise
        text = " ".join(str(error).split())[:200]
        raise UserError(f"{file}: is damaged and cannot be read ({type(error).__name__}: {text})") from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UserError(f"{file}: is damaged: it holds {type(values).__name__}, not the settings of a run")
    return values


class _Loader(yaml.SafeLoader):
    """YAML without aliases, whose expansion can take more memory than there is."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.constructor.ConstructorError(None, None, "an alias, which no run's config has")
        return super().compose_node(parent, index)


def _nodes_are_mappings(values: dict[str, Any], schema: type) -> None:
    """Raises UserError for a node of the schema that is no mapping, whose key OmegaConf's error lacks."""
    for key in keys(schema):
        node, _, name = key.rpartition(".")
        inside: Any = values
        for part in filter(None, node.split(".")):
            inside = inside.get(part, {})
        if name in inside and is_dataclass(type_of(key, schema)) and not isinstance(inside[name], dict):
            raise UserError(f"{key}: got {inside[name]!r:.40}; it has keys of its own")


def _explained(error: OmegaConfBaseException) -> str:
    from loralab.config.explain import explain

    missing = re.search(r"missing mandatory value: (\S+)", str(error))
    if missing:
        return f"{error.full_key or missing[1]}: is missing"
    return explain(error) or " ".join(str(error).split())
