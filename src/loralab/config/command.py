"""Config -> the command that reproduces its run."""

import shlex
from typing import Any

from omegaconf import OmegaConf

from loralab.config.compose import CONF, composed, leaves
from loralab.config.keys import config_values
from loralab.config.literal import literal
from loralab.config.overrides import to_override
from loralab.entries import typed

__all__ = ["command", "settings"]

_NOT_OF_THE_RUN = ("store", "name", "tags", "train.pause_at", "train.again", "model.rates")


def settings(config: Any) -> list[str]:
    """The overrides of train.py that compose `config`, a Config or a composed one.

    Without store, tracker and labels, and without `train.pause_at` and `train.again`, which are no part of a run: they
    say how far to train it now, and whether once more.
    Settings that are `auto` by default are always included, since a run's config has their resolved values; so the
    model.rates that resolved optim.lr are left out.
    """
    values = {
        key: value
        for key, value in leaves(config_values(config))
        if key not in _NOT_OF_THE_RUN and not key.startswith("tracker.")
    }
    groups = []
    for group, name in (("model", values["model.name"]), ("task", values["task.name"])):
        groups += [f"{group}={name}"] if name in {path.stem for path in (CONF / group).glob("*.yaml")} else []
    methods = [
        f"method={path.stem}"
        for path in sorted((CONF / "method").glob("*.yaml"))
        if OmegaConf.load(path).method.name == values["method.name"]
    ]
    commands = [[*groups, method, *_differing(values, [*groups, method])] for method in methods]
    shortest = min(commands, key=len)
    defaults = {"model=minilm", "task=rotten_tomatoes", "method=lora_plus"}
    return [override for override in shortest if override not in defaults]


def _differing(values: dict[str, Any], groups: list[str]) -> list[str]:
    """The overrides that turn the defaults with these groups into `values`."""
    base = composed(groups)
    sources = [key for key in ("seed",) if base[key] != values[key]]  # others derive from it
    found = [_override(key, values[key]) for key in sources]
    base = composed([*groups, *found]) if found else base
    return found + [_override(key, value) for key, value in values.items() if base[key] != value]


def _override(key: str, value: Any) -> str:
    """KEY=VALUE for a value of a config, in which every text is literal."""
    return f"{key}={to_override(literal(value))}"


def command(config: Any) -> str:
    """The shell command that reproduces the run of `config`."""
    return f"{typed('train')} {shlex.join(settings(config))}".rstrip()
