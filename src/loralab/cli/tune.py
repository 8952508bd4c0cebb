"""`loralab tune`: its options, and the process that does it."""

import argparse
from collections.abc import Callable
from pathlib import Path

from loralab.entries import typed

__all__ = ["EXAMPLES", "add_options", "tune"]

EXAMPLES = (
    "loralab tune                                           the default run's learning rate",
    "loralab tune task=local task.files.train=mine.csv task.text=[text] task.label=class --confirm 5",
    "loralab tune model=roberta task=trec lora.rank=16 --ratio       λ, too",
    "loralab tune task=trec --search optuna --trials 20 --space 'optim.lr=log(1e-4,1e-2)' 'lora.rank=[4,8,16]'",
    f"{typed('train')} tuned=outputs/tune/NAME/tune.yaml      train what was recommended",
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `loralab tune`; which go together, Options says."""

    def add(name: str, meaning: str, *, kind: Callable[[str], object] = str, metavar: str) -> None:
        parser.add_argument(f"--{name}", type=kind, metavar=metavar, help=meaning)

    parser.add_argument("overrides", metavar="KEY=VALUE", nargs="*", help="settings of every trial, as of train.py")
    parser.add_argument("--search", choices=("law", "optuna"), help="how trials are chosen (default: law)")
    meaning = "what optuna varies: log(a,b), uniform(a,b), int(a,b) or [x,y,z]"
    parser.add_argument("--space", metavar="KEY=SPEC", nargs="+", help=meaning)
    add("sampler", "how optuna draws: tpe, gp (Gaussian process) or random (default: tpe)", metavar="NAME")
    add("pruner", "how optuna stops runs early: halving, hyperband or none (default: halving)", metavar="NAME")
    add(
        "budget", "what the search may cost, in full runs (default: 5, or as much as --trials)", kind=float, metavar="B"
    )
    add("trials", "what optuna may try", kind=int, metavar="N")
    add("seeds", "seeds of the last candidates (default: 2)", kind=int, metavar="N")
    parser.add_argument("--ratio", action="store_true", default=None, help="check λ where s λ is 1 and 16, too")
    add("confirm", "fresh seeds that measure the gain over the default (default: 0)", kind=int, metavar="N")
    add("name", "of the session's folder in the store's tune/ (default: of model, task and method)", metavar="NAME")
    add("to", "the figure (default: tune.png beside tune.yaml)", kind=Path, metavar="FILE")


def tune(given: argparse.Namespace) -> int:
    """Runs a session in a process of its own, as `loralab study` does; returns its exit status."""
    from loralab.cli.child import exit_status
    from loralab.tuning.command import command
    from loralab.tuning.options import Options

    values = {
        "search": given.search, "space": given.space, "sampler": given.sampler, "pruner": given.pruner,
        "budget": given.budget, "trials": given.trials, "seeds": given.seeds,
        "ratio": given.ratio, "confirm": given.confirm, "name": given.name,
        "figure": None if given.to is None else str(given.to),
    }  # fmt: skip
    options = Options(**{key: value for key, value in values.items() if value is not None})
    return exit_status(command(given.overrides, options, given.store))
