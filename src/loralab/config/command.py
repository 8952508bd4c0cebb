"""Config -> the command that makes its run again."""

import shlex
from typing import Any

from omegaconf import OmegaConf

from loralab.config.compose import CONF, composed, leaves
from loralab.config.overrides import to_override

__all__ = ["command", "settings"]


def settings(config: Any) -> list[str]:
    """The overrides of `python train.py` that compose `config`, but for its store and tracker.

    What is `auto` in the defaults was resolved when the run began, so it is always among them.
    """
    values = {key: value for key, value in leaves(config) if key != "store" and not key.startswith("tracker.")}
    if not CONF.is_dir():  # installed without its checkout
        return [f"{key}={to_override(value)}" for key, value in values.items()]
    groups = []
    for group, name in (("model", values["model.name"]), ("task", values["task.name"])):
        groups += [f"{group}={name}"] if (CONF / group / f"{name}.yaml").is_file() else []
    methods = [
        f"method={path.stem}"
        for path in sorted((CONF / "method").glob("*.yaml"))
        if OmegaConf.load(path).method.name == values["method.name"]
    ]
    every = [[*groups, method, *_differing(values, [*groups, method])] for method in methods]
    shortest = min(every, key=len)
    defaults = {"model=minilm", "task=rotten_tomatoes", "method=lora_plus"}
    return [override for override in shortest if override not in defaults]


def _differing(values: dict[str, Any], groups: list[str]) -> list[str]:
    """The overrides that lead from the defaults with these groups to `values`."""
    base = composed(groups)
    sources = [key for key in ("seed", "model.default_lr") if base[key] != values[key]]  # others follow from these two
    found = [f"{key}={to_override(values[key])}" for key in sources]
    base = composed([*groups, *found]) if found else base
    return found + [f"{key}={to_override(value)}" for key, value in values.items() if base[key] != value]


def command(config: Any) -> str:
    """The line for a shell that makes the run of `config` again."""
    return shlex.join(["python", "train.py", *settings(config)])
