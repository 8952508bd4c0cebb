"""The command of a process that runs a session: train.py with the sweeper `tune`."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from loralab.config.literal import literal
from loralab.config.overrides import to_override
from loralab.entries import process
from loralab.errors import UserError
from loralab.tuning.options import Options

__all__ = ["command"]


def command(overrides: Sequence[str], options: Options, store: Path) -> list[str]:
    """The arguments of the process; store: unless an override names one. Raises UserError for a study."""
    for text in overrides:
        if text.partition("=")[0].lstrip("+") == "sweeps":
            raise UserError(f"{text}: a study varies what it names; loralab tune takes the settings of one run")
    default = Options(search=options.search, space=options.space)
    values = {field.name: getattr(options, field.name) for field in fields(options)}
    chosen = {key: value for key, value in values.items() if value != getattr(default, key)}
    chosen |= {"search": options.search} | ({"space": list(options.space)} if options.space else {})
    settings = [f"hydra.sweeper.{key}={to_override(literal(value))}" for key, value in chosen.items()]
    if not any(text.startswith("store=") for text in overrides):
        settings.append(f"store={to_override(literal(str(store)))}")
    return [*process("train"), "--multirun", "hydra/sweeper=tune", *settings, *overrides]
