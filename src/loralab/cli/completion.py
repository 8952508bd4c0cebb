"""Shell completion by argcomplete: commands, options, runs, studies, and Hydra's own for settings."""

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import argcomplete

from loralab.compat.hydra import completions
from loralab.config.compose import configs
from loralab.inspect.watched_sweep import listed
from loralab.sweeps.study import studies

__all__ = ["complete"]

Completer = Callable[..., list[str]]


def complete(parser: argparse.ArgumentParser, **options: Any) -> None:
    """Prints what may follow the line in the environment, where the shell's function put it, and ends the process.

    options: those of argcomplete.autocomplete.
    """
    for each in _parsers(parser):
        for action in each._actions:
            if action.metavar in COMPLETERS:
                action.completer = COMPLETERS[action.metavar]  # type: ignore[attr-defined]  # argcomplete looks for it
    argcomplete.autocomplete(parser, always_complete_options=False, **options)


def _parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parser and those of its subcommands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from _parsers(each)


def _runs(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """Names of the store's runs; hashes too once one is begun, which name the same runs again."""
    names = [path.name for path in (parsed_args.store / "runs").glob("*")]
    return names + [name.rsplit("-", 1)[-1] for name in names if prefix]


def _sweep_ids(parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """IDs of the store's sweeps, and the words that name one or all."""
    return ["last", "all", *(path.stem for path in (parsed_args.store / "sweeps").glob("*.json"))]


def _studies(**_: Any) -> list[str]:
    return studies()


def _watched_ids(parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    return ["last", *listed(parsed_args.store)]


def _settings(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    with configs():
        return completions(getattr(parsed_args, "overrides", None) or [], prefix)


COMPLETERS: dict[object, Completer] = {
    "RUN": _runs,
    "STUDY": _studies,
    "last|ID": _watched_ids,
    "last|all|ID": _sweep_ids,
    "KEY=VALUE": _settings,
}
"""By the metavar of an argument."""
