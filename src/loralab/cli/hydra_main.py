"""The command line's frame around a Hydra function: the schema is registered, and a user's mistake is one line.

Exit status: 0 done, 2 a mistake of the user's, 130 or 143 interrupted (the same command goes on),
141 nobody reads its output any more, 1 anything else.
"""

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from loralab.compat import hydra as compat
from loralab.compat.home import use_temporary_caches
from loralab.config import pretrain as pretrain_config
from loralab.config.compose import register_schemas
from loralab.config.explain import explain, in_arguments
from loralab.config.overrides import translated
from loralab.config.schema import Config, from_hydra
from loralab.errors import RunsFailed, UserError
from loralab.imports import without_collection
from loralab.runs.console import Console
from loralab.training.distributed import launched, let_first_speak, refuse_multirun
from loralab.training.signals import Interrupted

__all__ = ["Mistake", "launch", "pretrain", "train"]

register_schemas()  # here, so that a process that only unpickles the entry has them too


class Mistake(BaseException):
    """A user's mistake in a single run, in one line; no Exception, so that Hydra prints nothing of its own."""


def train(composed: DictConfig) -> float | None:
    """Trains what Hydra composed, or finds it done; gives the primary metric of the best validation step."""
    with _mistakes_told() as title:
        if title is not None:
            refuse_multirun()
        config = from_hydra(composed)
        with without_collection():
            from loralab.runs.run import run  # torch takes a second to import: a mistake above is told at once

        metrics = run(config, wait=title is not None, console=Console.for_terminal(title))["metrics"]
    best = metrics["validation"]["best"]
    return None if best is None else best[metrics["primary"]]


def pretrain(composed: DictConfig) -> float | None:
    """Pretrains what Hydra composed, or finds it done; gives the last held-out loss."""
    with _mistakes_told(pretrain_config.PretrainConfig) as title:
        config = pretrain_config.from_hydra(composed)
        with without_collection():
            from loralab.pretraining.run import pretrain as run

        metrics = run(config, wait=title is not None, console=Console.for_terminal(title))["metrics"]
    last = metrics["validation"]["last"]
    return None if last is None else last["loss"]


@contextlib.contextmanager
def _mistakes_told(schema: type = Config) -> Iterator[str | None]:
    """Gives what sets this job of a multirun apart; in here a mistake becomes its line, all else is raised."""
    title = _job_title()
    try:
        if HydraConfig.initialized() and HydraConfig.get().job.chdir:
            raise UserError("hydra.job.chdir: got true; your files are found from where you are, so leave it false")
        yield title
    except Exception as error:  # whatever explain does not know as a mistake is raised as it came
        line = explain(error, schema)
        if line is None or title is not None:  # in a multirun Hydra says which job it was
            raise
        raise Mistake(line) from error


def launch(command: Callable[[], Any], *, schema: type = Config) -> None:
    """Runs a Hydra entry point and exits with the status that its end calls for; schema: of its configuration.

    A process of torchrun's leaves without the interpreter's teardown: one of the threads under its process group may
    outlive what holds it, and the process would end with SIGABRT after all was done.
    """
    if launched() == 1:
        _launch(command, schema)
        return
    status: Any = 0
    try:
        _launch(command, schema)
    except SystemExit as ended:
        status = ended.code
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else 1)


def _launch(command: Callable[[], Any], schema: type) -> None:
    """The same, by way of SystemExit.

    Hydra prints errors over several lines and exits with 1; asked for full errors, it raises them, and they are put
    in one line here. Who sets HYDRA_FULL_ERROR=1 sees the traceback.
    """
    use_temporary_caches()
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        flags, settings = translated(sys.argv[1:])
    except UserError as error:
        sys.exit(_say(str(error)))
    sys.argv[1:] = [*flags, *settings]  # argparse would refuse `model=tiny -m seed=0,1`
    known = compat.flags()
    if known is not None and (line := in_arguments(sys.argv[1:], known, schema)):
        sys.exit(_say(line))
    compat.use_arguments_parser()
    try:
        try:
            command()
        finally:
            sys.stdout.flush()  # here, so that a reader who is gone is noticed: at the exit it would be a message
    except KeyboardInterrupt:
        sys.exit(130)
    except Interrupted as interrupt:
        sys.exit(interrupt.status)
    except BrokenPipeError:  # the reader of `--help | head` has seen enough; nothing may be flushed to it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except RunsFailed as error:
        if error.args:
            print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except (Exception, Mistake) as error:
        line = str(error) if isinstance(error, Mistake) else explain(error, schema)
        if line is None or wants_traceback:
            raise
        sys.exit(_say(line))


def _job_title() -> str | None:
    """What sets this job of a multirun apart, None in a single run."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return None
    job = HydraConfig.get()
    swept = [override for override in job.overrides.task if override not in sys.argv]
    return f"#{job.job.num}  {' '.join(swept)}"


def _say(line: str) -> int:
    let_first_speak()
    print(f"error: {line}", file=sys.stderr)
    return 2
