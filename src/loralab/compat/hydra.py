"""What loralab uses of Hydra's internals.

Written for hydra-core 1.3.8. Each function states the fallback for a Hydra that has changed.
"""

import argparse
import contextlib
import functools
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import hydra
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig

__all__ = [
    "READ",
    "apply_values",
    "arguments_parser",
    "escape",
    "flags",
    "is_read",
    "outcome",
    "share_store",
    "use_arguments_parser",
]

READ = ("1.3.8",)
"""The versions whose code was read for this module."""


def is_read() -> bool:
    """Whether the installed Hydra is one of READ."""
    return hydra.__version__ in READ


@contextlib.contextmanager
def _any_help() -> Iterator[None]:
    """Inside, argparse accepts a help text that is not a string, as before Python 3.14.

    Hydra's help of --shell-completion is an object that looks for plugins once it is printed, which Python 3.14's
    argparse refuses (facebookresearch/hydra issue 3121). Hydra formats its help without argparse.
    """
    parser: Any = argparse.ArgumentParser
    if "_check_help" in vars(parser) or not hasattr(parser, "_check_help"):  # it is inherited where it is there
        yield
        return
    parser._check_help = lambda *_: None
    try:
        yield
    finally:
        del parser._check_help


def _with_any_help(make: Callable[[], argparse.ArgumentParser]) -> Callable[[], argparse.ArgumentParser]:
    @functools.wraps(make)
    def made() -> argparse.ArgumentParser:
        with _any_help():
            return make()

    return made


def arguments_parser() -> argparse.ArgumentParser | None:
    """The parser of Hydra's own flags; None where Hydra has none under this name."""
    try:
        from hydra._internal.utils import get_args_parser

        return _with_any_help(get_args_parser)()
    except (ImportError, TypeError, ValueError):
        return None


def use_arguments_parser() -> None:
    """Lets `hydra.main` build its parser of flags on Python 3.14."""
    module = vars(sys.modules.get("hydra.main", sys))
    make = module.get("get_args_parser")
    if make is not None and not hasattr(make, "__wrapped__"):
        module["get_args_parser"] = _with_any_help(make)


def flags() -> list[str] | None:
    """Hydra's own flags (--help, -m, ...); None where they are not known; Hydra then reports an unknown flag itself."""
    parser = arguments_parser()
    actions = getattr(parser, "_actions", None)
    return None if actions is None else [option for action in actions for option in action.option_strings]


def apply_values(loader: ConfigLoader, overrides: Sequence[Override], config: DictConfig) -> bool:
    """Puts overrides of values into a composed config, in place; False where Hydra has no such function.

    The caller then composes the whole by `ConfigLoader.load_sweep_config`. Raises what Hydra raises for a value that
    the config does not take.
    """
    apply = getattr(loader, "_apply_overrides_to_config", None)
    if apply is None:
        return False
    apply(list(overrides), config)
    return True


def share_store() -> None:
    """Has copies of Hydra's search path share its store of schemas, which it copies for every question otherwise.

    A question such as "which files are in this group?" took 8 ms, and `--help` asks 81 of them. Hydra copies a schema
    when it takes it from the store, so that the store stays as it is. Another release than those of READ is left alone.
    """
    if is_read():
        ConfigStore.__deepcopy__ = lambda store, _: store  # type: ignore[attr-defined]  # it has none to replace


def escape(key: str) -> str:
    """A key of a mapping as Hydra's command line reads it, where keys cannot be quoted."""
    from hydra._internal.grammar.utils import escape_special_characters

    return escape_special_characters(key)


def outcome(job: JobReturn) -> Any:
    """A job's return value, or the exception that ended it, which the public property raises and prints."""
    if job.status == JobStatus.COMPLETED:
        return job.return_value
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            return job.return_value
        except BaseException as error:  # any exception is a result here
            return error
