"""The entries that Hydra starts: they register the schema and print a user's mistake in one line.

Exit status: 0 done, 2 a mistake of the user's, or standard output that could not be written (a run that was trained is
kept), 130 or 143 interrupted (the same command goes on), 141 its output is no longer read, 1 anything else.
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

from loralab.cli.other_plugins import follow_others
from loralab.compat import hydra as compat
from loralab.compat.home import use_temporary_caches
from loralab.config import pretrain as pretrain_config
from loralab.config.arguments import in_arguments, translated
from loralab.config.compose import register_schemas
from loralab.config.explain import explain
from loralab.config.schema import Config, from_hydra
from loralab.errors import RunsFailed, UserError
from loralab.imports import without_collection
from loralab.runs.console import Console
from loralab.startup import refuse_undecoded
from loralab.streams import finish, prepare
from loralab.text import shown
from loralab.training.distributed import launched, let_first_speak, refuse_multirun
from loralab.training.signals import Interrupted

__all__ = ["Mistake", "launch", "pretrain", "train"]

register_schemas()  # here, so that a process that only unpickles the entry has them too


class Mistake(BaseException):
    """A user's mistake in a single run, in one line; no Exception, so that Hydra prints nothing of its own."""


def train(composed: DictConfig) -> float | None:
    """Trains what Hydra composed, or finds it done; gives the primary metric of the best validation step."""
    with _mistakes_in_one_line() as title:
        if title is not None:
            refuse_multirun()
        config = from_hydra(composed)
        with without_collection():
            from loralab.runs.run import run  # torch takes a second to import; a mistake above is printed at once

        metrics = run(config, wait=title is not None, console=Console.for_terminal(title))["metrics"]
    best = metrics["validation"]["best"]
    return None if best is None else best[metrics["primary"]]


def pretrain(composed: DictConfig) -> float | None:
    """Pretrains what Hydra composed, or finds it done; gives the last held-out loss."""
    with _mistakes_in_one_line(pretrain_config.PretrainConfig) as title:
        config = pretrain_config.from_hydra(composed)
        with without_collection():
            from loralab.pretraining.run import pretrain as run

        metrics = run(config, wait=title is not None, console=Console.for_terminal(title))["metrics"]
    last = metrics["validation"]["last"]
    return None if last is None else last["loss"]


@contextlib.contextmanager
def _mistakes_in_one_line(schema: type = Config) -> Iterator[str | None]:
    """Yields this job's title in a multirun; inside, a user's mistake becomes one line, other errors are raised."""
    title = _job_title()
    try:
        if HydraConfig.initialized() and HydraConfig.get().job.chdir:
            raise UserError("hydra.job.chdir: got true; your files are found from where you are, so leave it false")
        yield title
    except Exception as error:  # what is no user's mistake is raised unchanged
        line = explain(error, schema)
        if line is None or title is not None:  # in a multirun Hydra names the job
            raise
        raise Mistake(line) from error


def launch(command: Callable[[], Any], *, schema: type = Config) -> None:
    """Runs a Hydra entry point and exits with its status; schema: of its configuration.

    Under torchrun the process exits without the interpreter's teardown: a thread of its process group may outlive the
    group, and the process would end with SIGABRT after all is done.
    """
    prepare()
    status: Any = 0
    try:
        _launch(command, schema)
    except SystemExit as ended:
        status = ended.code or 0
    except BaseException:
        if launched() == 1:
            raise
        traceback.print_exc()
        status = 1
    status = finish(status if isinstance(status, int) else 1, unread=141)
    if launched() > 1:
        os._exit(status)
    if status:
        sys.exit(status)


def _launch(command: Callable[[], Any], schema: type) -> None:
    """The same, by way of SystemExit.

    Hydra prints errors over several lines and exits with 1; asked for full errors, it raises them, and they are put
    in one line here. HYDRA_FULL_ERROR=1 shows the traceback.
    """
    use_temporary_caches()
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        refuse_undecoded([*sys.argv[1:], os.getcwd()])  # noqa: PTH109  # pathlib's is no text
        flags, settings = translated(sys.argv[1:])
    except UserError as error:
        sys.exit(_say(str(error)))
    sys.argv[1:] = [*flags, *settings]  # argparse would refuse `model=tiny -m seed=0,1`
    known = compat.flags()
    if known is not None and (line := in_arguments(sys.argv[1:], known, schema)):
        sys.exit(_say(line))
    compat.use_arguments_parser()
    try:
        with follow_others() if schema is Config else contextlib.nullcontext():
            command()
    except KeyboardInterrupt:
        sys.exit(130)
    except Interrupted as interrupt:
        sys.exit(interrupt.status)
    except RunsFailed as error:
        if error.args:
            print(f"error: {shown(str(error))}", file=sys.stderr)
        sys.exit(1)
    except (Exception, Mistake) as error:
        line = str(error) if isinstance(error, Mistake) else explain(error, schema)
        if line is None or wants_traceback:
            raise
        sys.exit(_say(line))


def _job_title() -> str | None:
    """Number and overrides of this job of a multirun; None in a single run."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return None
    job = HydraConfig.get()
    swept = [override for override in job.overrides.task if override not in sys.argv]
    return f"#{job.job.num}  {' '.join(swept)}"


def _say(line: str) -> int:
    let_first_speak()
    print(f"error: {shown(line)}", file=sys.stderr)
    return 2
