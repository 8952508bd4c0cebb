"""The arguments of a command -> flags and settings for Hydra, checked for what Hydra trips over or never ends with."""

import difflib
import math
import re
from collections.abc import Sequence

from loralab.config.checks import brief
from loralab.config.keys import type_of
from loralab.config.overrides import check_size, expand_logspace, read, size_of
from loralab.config.schema import Config
from loralab.config.tuned_file import with_tuned
from loralab.errors import UserError

__all__ = ["GROUPS", "check_settings", "in_arguments", "translated"]

# Hydra's flags that loralab has no use for, and why.
_REFUSED = {
    "--experimental-rerun": "it loads a pickle, which can run any code; a run's command is in its record.json",
}
GROUPS = ("model", "task", "method", "tracker", "sweeps")
"""The keys that choose a file."""
_LONGEST_NUMBER = 400  # digits: more than any number that fits into a float has
_DEEPEST = 20  # brackets in one another, in a value


def in_arguments(arguments: Sequence[str], flags: Sequence[str], schema: type = Config) -> str | None:
    """The line for a flag that is not one of Hydra's `flags`, for which argparse would print its whole usage."""
    for argument in arguments:
        flag, _, value = argument.partition("=")
        if argument in ("-", "--") or (argument.startswith("-") and not flag.strip("-")):
            return f"{argument}: no such flag; `--help` lists them; settings are written KEY=VALUE"
        for refused, why in _REFUSED.items():
            if len(flag) > 2 and refused.startswith(flag):
                return f"{refused}: {why}"
        if not argument.startswith("-") or any(option.startswith(flag) for option in flags):
            continue
        if type_of(flag.lstrip("-"), schema) is not None:
            return f"{flag}: settings are written without dashes: {flag.lstrip('-')}={value}"
        near = difflib.get_close_matches(flag, flags, n=1)
        hint = f"did you mean {near[0]}?" if near else "settings are written KEY=VALUE"
        return f"{flag}: no such flag; `--help` lists them; {hint}"
    return None


def translated(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Flags and settings for Hydra, from the shorter forms of loralab's command line.

    tuned=FILE becomes the overrides that `loralab tune` wrote there; logspace(a,b,n) becomes its values; sweeps=X and
    +sweeps=X imply --multirun, unless hydra.mode=RUN asks for one run with the settings of the sweep's file; --dry-run
    and smoke=true become settings of the sweeper, --again one of the run. Raises UserError for a setting that
    `check_settings` refuses.
    """
    arguments = with_tuned(arguments)
    flags, settings = [], []
    is_single = "hydra.mode=RUN" in arguments
    is_study = any(argument.partition("=")[0].lstrip("+") == "sweeps" for argument in arguments)
    for argument in arguments:
        key, _, value = argument.partition("=")
        if argument == "--dry-run":
            flags.append("--multirun")
            settings.append("hydra.sweeper.dry_run=true")
        elif argument == "--again":
            settings.append("train.again=true")
        elif key == "smoke":
            if value not in ("true", "false"):
                raise UserError(f"smoke: got {value or 'nothing'}; it must be true or false")
            if not is_study:
                raise UserError("smoke: applies only to a study; name one, as sweeps=first smoke=true")
            settings.append(f"hydra.sweeper.size={'smoke' if value == 'true' else 'full'}")
        elif key.lstrip("+") == "sweeps":
            flags += [] if is_single else ["--multirun"]
            settings.append(f"+sweeps={value}")
        elif argument.startswith("-") or "=" not in argument:
            flags.append(argument)
        else:
            settings.append(expand_logspace(argument))
    check_settings([*(flag for flag in flags if not flag.startswith("-")), *settings])
    implied = "--multirun" in flags  # once is enough; other flags stay as they are
    return [*["--multirun"] * implied, *(flag for flag in flags if flag != "--multirun")], settings


def check_settings(settings: Sequence[str]) -> None:
    """Raises UserError for a setting whose text Hydra cannot read or would read for ever, and for an endless sweep."""
    sizes = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        name = key.lstrip("+~")
        if found := re.search(rf"\d{{{_LONGEST_NUMBER}}}\d*", setting):
            raise UserError(f"{name[:60]}: got a number of {len(found[0])} digits; write one of a few digits")
        if _depth(value) > _DEEPEST:
            raise UserError(f"{name}: got {brief(value)}, with brackets {_depth(value)} deep; write at most {_DEEPEST}")
        if not equals and not setting.startswith("~"):
            continue  # Hydra has a line for it
        if name in GROUPS or "/" in name:
            _check_group(setting, key, value)
        if "," in value or "(" in value:
            sizes[name] = _size(setting, name)
    check_size(math.prod(sizes.values()), "the product of the lists")


def _size(setting: str, name: str) -> int:
    from hydra.errors import HydraException

    try:
        override = read(setting)
    except HydraException:
        return 1  # Hydra says what is wrong
    if not override.is_sweep_override():
        return 1
    count = size_of(override, name)
    check_size(count, f"{name}: got {brief(override.get_value_string())[1:-1]}, which")
    return max(1, count)


def _check_group(setting: str, key: str, value: str) -> None:
    name = key.lstrip("+~")
    if key.startswith("~") and name in GROUPS:
        raise UserError(f"{setting}: {name} cannot be removed with ~; choose one as {name}=OPTION")
    if value.startswith(("[", "{")):
        raise UserError(f"{name}: got {brief(value)}; it takes the name of one option, as {name}=OPTION")


def _depth(text: str) -> int:
    deepest = depth = 0
    for letter in text:
        depth += (letter in "[{(") - (letter in ")}]")
        deepest = max(deepest, depth)
    return deepest
