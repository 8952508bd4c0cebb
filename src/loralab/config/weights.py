"""One source of a run's weights: the user's own before that of conf/model/NAME.yaml, and a name that says which."""

import functools
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from omegaconf import OmegaConf

from loralab import places
from loralab.config.checks import cut
from loralab.config.literal import literal

__all__ = ["keep_one_source"]

_SOURCES = ("path", "hub", "package")  # the first that is set wins
_HUBS_CACHE = re.compile(r"models--[^/]+--([^/]+)/snapshots/[^/]+$")


class Model(Protocol):
    """The part of a config's model node that says where its weights are."""

    name: str
    path: str | None
    hub: str | None
    package: str | None


def keep_one_source(model: Model, *, store: str) -> None:
    """Where the user sets a source that conf/model/NAME.yaml has not, it replaces the file's, and names the model.

    `model=minilm model.hub=org/bert` is the model `bert`, without MiniLM's package. A `model.name` of the user's own,
    and two sources of the user's own, are left as they are.
    """
    files = _sources_of(model.name, store)
    if files is None:
        return
    given = {key: value for key in _SOURCES if (value := getattr(model, key)) is not None and value != files[key]}
    if not given:
        return
    first = next(iter(given))
    model.name = _name_in(first, given[first]) or model.name
    for key in _SOURCES:
        if key not in given:
            setattr(model, key, None)


@functools.cache  # sweeps compose thousands of configs
def _sources_of(name: str, store: str) -> Mapping[str, str | None] | None:
    """The sources in conf/model/NAME.yaml, None where there is no such file."""
    file = places.found(places.HERE / "conf" / "model" / f"{name}.yaml")
    if name != Path(name).name or not file.is_file():
        return None
    written = OmegaConf.create({"store": literal(store), "model": OmegaConf.load(file)})
    return {key: OmegaConf.select(written, f"model.{key}") for key in _SOURCES}


def _name_in(key: str, source: str) -> str:
    """`bert` of org/bert, of some/where/bert/model and of bert.gguf; "" for a path without a name, such as /."""
    if key != "path":
        last = source.split("/")[0 if key == "package" else -1]
    elif found := _HUBS_CACHE.search(source.rstrip("/")):
        last = found[1]
    else:
        path = Path(os.path.abspath(os.path.expanduser(source)))  # noqa: PTH100, PTH111  # of a path that need not exist
        named = path.parent if path.name == "model" else path  # as pretrain.py and a run's directory have it
        last = named.stem if named.suffix == ".gguf" else named.name
    return cut(last)
