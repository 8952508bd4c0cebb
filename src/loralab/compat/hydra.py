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
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

__all__ = [
    "READ",
    "apply_values",
    "arguments_parser",
    "completions",
    "each_launcher",
    "escape",
    "flags",
    "guard",
    "is_hydras",
    "is_read",
    "outcome",
    "plugins",
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
    """The same function; its parser raises HydraException where argparse prints its usage and exits."""

    def refuse(message: str) -> None:
        raise HydraException(f"{message}; `--help` lists the settings")

    @functools.wraps(make)
    def made() -> argparse.ArgumentParser:
        with _any_help():
            parser = make()
        parser.error = refuse  # type: ignore[method-assign, assignment]  # the place that argparse has for it
        return parser

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
    with _of_what_a_person_wrote():
        apply(list(overrides), config)
    return True


def share_store() -> None:
    """Has copies of Hydra's search path share its store of schemas, which it copies for every question otherwise.

    A question such as "which files are in this group?" took 8 ms, and `--help` asks 81 of them. Hydra copies a schema
    when it takes it from the store, so that the store stays as it is. Another release than those of READ is left alone.
    """
    if is_read():
        ConfigStore.__deepcopy__ = lambda store, _: store  # type: ignore[attr-defined]  # it has none to replace


def guard(check: Callable[[DictConfig], None], check_package: Callable[[str], None]) -> None:
    """Has Hydra pass every config that it composes to `check`, before it acts on it; repeated calls are harmless.

    check_package: of the name of each package that Hydra is about to search for configs. Both raise where they refuse.
    What else Hydra or its parser raises there is about what a person wrote, and becomes a HydraException. There is no
    fallback: in a Hydra without these two classes nothing may be composed, since it would not be checked.
    """
    compose, search = ConfigLoaderImpl.load_configuration, ConfigRepository.initialize_sources
    if hasattr(compose, "__wrapped__"):
        return

    @functools.wraps(compose)
    def composed(*given: Any, **named: Any) -> DictConfig:
        with _of_what_a_person_wrote():
            config = compose(*given, **named)
        check(config)
        return config

    @functools.wraps(search)
    def searched(repository: Any, config_search_path: Any) -> None:
        for place in config_search_path.get_path():
            if str(place.path).startswith("pkg://"):
                check_package(place.path.removeprefix("pkg://"))
        search(repository, config_search_path)

    # Hydra has no hook before it acts on a config; mypy allows no assignment to a method
    ConfigLoaderImpl.load_configuration = composed  # type: ignore[method-assign]
    ConfigRepository.initialize_sources = searched  # type: ignore[method-assign, assignment]


@contextlib.contextmanager
def _of_what_a_person_wrote() -> Iterator[None]:
    """Inside, what Hydra's and OmegaConf's own code raises becomes a HydraException: their readers raise anything."""
    try:
        yield
    except (HydraException, OmegaConfBaseException, MemoryError):
        raise
    except Exception as error:  # raised unchanged unless a reader of Hydra's, OmegaConf's or YAML's raised it
        of_the_system = isinstance(error, OSError) and error.errno is not None
        readers = isinstance(error, RecursionError) or is_hydras(
            error, "hydra", "omegaconf", "antlr4", "yaml", "os", "codecs"
        )
        if of_the_system or not readers:
            raise
        raise HydraException(_said(error)) from error


def _said(error: Exception) -> str:
    if str(error).startswith("Config group override must be"):
        return "a group (model, task, method, tracker) takes the name of one option, not null or a number"
    what = " ".join(str(error).split())[:300] or "no reason given"
    return f"Hydra cannot compose these settings: {type(error).__name__}: {what}"


@contextlib.contextmanager
def each_launcher(follow: Callable[[Launcher, HydraContext, DictConfig], Launcher]) -> Iterator[None]:
    """Inside, a sweeper that asks Hydra for its launcher gets what `follow` makes of it, of Hydra's context and config.

    Hydra's callbacks of jobs are called where the jobs run, which may be another machine. A Hydra without this method
    gives its launcher unchanged.
    """
    make = getattr(Plugins, "instantiate_launcher", None)
    if make is None:
        yield
        return

    @functools.wraps(make)
    def made(
        plugins: Plugins, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> Launcher:
        return follow(make(plugins, hydra_context, task_function, config), hydra_context, config)

    Plugins.instantiate_launcher = made  # type: ignore[method-assign, assignment]  # Hydra has no hook between the two
    try:
        yield
    finally:
        Plugins.instantiate_launcher = make  # type: ignore[method-assign]


def is_hydras(error: BaseException, *packages: str) -> bool:
    """Whether Hydra itself raised this exception (or one of the packages), as for arguments that do not go together."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return frame is not None and frame.tb_frame.f_globals.get("__name__", "").split(".")[0] in (packages or ("hydra",))


def completions(words: Sequence[str], prefix: str) -> list[str]:
    """What Hydra's own shell completion offers for the word that begins with `prefix`, after `words`; none on an error.

    Hydra must be initialised, with a primary config named config. Another Hydra without these classes offers nothing.
    """
    with contextlib.suppress(Exception):  # a shell has no place for an error
        from hydra.core.global_hydra import GlobalHydra
        from hydra.plugins.completion_plugin import DefaultCompletionPlugin

        completion: Any = DefaultCompletionPlugin(GlobalHydra.instance().config_loader())
        return [str(each) for each in completion._query("config", " ".join([*words, prefix]))]
    return []


def plugins() -> dict[str, set[str]]:
    """The classes that Hydra has for its "launcher" and its "sweeper", and the "parts" that these make.

    A part is the `_target_` in a config that a plugin registered, such as a sampler of Optuna.
    """
    kinds = {"launcher": Launcher, "sweeper": Sweeper}
    found = {name: Plugins.instance().discover(kind) for name, kind in kinds.items()}
    classes = {name: {f"{one.__module__}.{one.__name__}" for one in some} for name, some in found.items()}
    parts = set(_targets(ConfigStore.instance().repo.get("hydra"))).difference(*classes.values())
    return {**classes, "parts": parts}


def _targets(node: Any) -> Iterator[str]:
    """Every `_target_` in the configs of a store's folder."""
    if isinstance(node, dict):
        for each in node.values():
            yield from _targets(each)
    elif isinstance(found := getattr(node, "node", None), DictConfig):
        yield from _in_config(OmegaConf.to_container(found))


def _in_config(values: Any) -> Iterator[str]:
    for name, value in values.items() if isinstance(values, dict) else ():
        if name == "_target_" and isinstance(value, str):
            yield value
        yield from _in_config(value)


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
