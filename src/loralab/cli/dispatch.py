"""The commands that argparse does not read: the entries, whose arguments are Hydra's; the version; completion."""

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence

__all__ = ["ENTRIES", "dispatched"]

ENTRIES = {
    "train": "train a run, or several with -m; takes settings, as train.py",
    "pretrain": "pretrain a small language model; takes settings, as pretrain.py",
}


def dispatched(words: Sequence[str], parser: Callable[[], argparse.ArgumentParser]) -> int | None:
    """The exit status of such a command, once it has run; None for any other. parser: makes that of all commands."""
    if "_ARGCOMPLETE" in os.environ:  # a shell asks how the line may go on; this ends the process
        from loralab.cli.completion import complete

        complete(parser())
    if words[:1] == ["--version"]:
        from loralab.cli.version import version

        print(version())
        return 0
    if words and words[0] in ENTRIES:
        return _entry(*words)
    return None


def _entry(name: str, *words: str) -> int:
    """Exits with the status of a failure, as train.py does."""
    from loralab.cli import hydra_main

    entry = importlib.import_module(f"loralab.cli.{name}")
    sys.argv[1:] = words
    hydra_main.launch(entry.main, schema=entry.SCHEMA)
    return 0
