"""The internals of Hydra that are used exist, also on Python 3.14; if they have changed, a fallback is used."""

import argparse
import copy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from loralab.compat import hydra as compat
from loralab.config.compose import Composer, configs
from tests.small_runs import SMALL

ROOT = Path(__file__).resolve().parents[2]
JOB = [*SMALL, "lora.rank=4", "model=roberta"]


ADD = argparse.ArgumentParser.add_argument


def strict(_parser: argparse.ArgumentParser, action: argparse.Action) -> None:
    """Python 3.14's check of a help text, which must be a string."""
    if action.help is not None and "%" in action.help:
        action.help.encode()


def checked(parser: argparse.ArgumentParser, *names: str, **settings: Any) -> argparse.Action:
    """Python 3.14's `add_argument`, which checks the help text at once."""
    action = ADD(parser, *names, **settings)
    parser._check_help(action)  # type: ignore[attr-defined]  # new in Python 3.14
    return action


@pytest.fixture
def composer() -> Iterator[Composer]:
    with configs():
        running = GlobalHydra.instance().hydra
        assert running is not None
        master = running.compose_config("config", [*SMALL], run_mode=RunMode.MULTIRUN, with_log_configuration=False)
        yield Composer(running.config_loader, master)


def by_hydra(composer: Composer) -> DictConfig:
    """The config of a job without its hydra node, as Hydra composes it."""
    whole = composer.loader.load_sweep_config(composer.master, JOB)
    OmegaConf.set_struct(whole, False)
    OmegaConf.set_readonly(whole, False)
    del whole["hydra"]
    return whole


def test_the_parser_is_made_where_argparse_takes_strings_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    parents = argparse.ArgumentParser.__mro__
    monkeypatch.setattr(parents[-2], "_check_help", strict, raising=False)
    monkeypatch.setattr(parents[-2], "add_argument", checked)
    with pytest.raises(TypeError):
        argparse.ArgumentParser().add_argument("--x", help=object())  # type: ignore[arg-type]  # like Hydra's
    parser = compat.arguments_parser()
    assert parser is not None and "--multirun" in (compat.flags() or ())
    assert argparse.ArgumentParser._check_help is strict, "put back"  # type: ignore[attr-defined]


def test_a_parser_of_another_name_leaves_flags_to_hydra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("hydra._internal.utils.get_args_parser")
    assert compat.arguments_parser() is None and compat.flags() is None
    compat.use_arguments_parser()  # and changes nothing


@pytest.mark.slow
def test_the_command_works_without_the_parsers_name() -> None:
    """In a separate process: a mistake in a key is still reported in one line."""
    code = (
        "import sys, runpy, hydra._internal.utils as u, hydra.main; del u.get_args_parser\n"
        "sys.argv = ['train.py', 'lora.rnk=1']; sys.path.insert(0, '.')\n"
        "runpy.run_path('train.py', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith("error: lora.rnk: no such key"), done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_without_a_function_that_puts_values_in_hydra_composes_every_job(
    composer: Composer, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = by_hydra(composer)
    assert composer.settings(JOB) == wanted
    monkeypatch.setattr(composer.loader, "_apply_overrides_to_config", None)
    assert composer.settings(JOB) == wanted
    assert composer.job(JOB, 3).hydra.job.num == 3


def test_an_unknown_hydra_that_puts_values_in_otherwise_is_found_out(
    composer: Composer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compat, "READ", ("0.9",))
    there = Composer(composer.loader, composer.master)
    assert there.quick is None and there.settings(JOB) == by_hydra(composer) and there.quick
    monkeypatch.setattr(composer.loader, "_apply_overrides_to_config", lambda *_: None)
    planted = Composer(composer.loader, composer.master)
    assert planted.settings(JOB) == by_hydra(composer) and planted.quick is False


def test_copies_share_the_store_of_schemas_and_what_is_taken_from_it_is_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    store = ConfigStore.instance()
    with configs():
        assert copy.deepcopy(store) is store
        taken = store.load("schema.yaml").node
        taken.lora.rank = 99
        assert OmegaConf.is_missing(store.load("schema.yaml").node.lora, "rank")
    monkeypatch.delattr(ConfigStore, "__deepcopy__")
    monkeypatch.setattr(compat, "READ", ("0.9",))
    compat.share_store()
    assert copy.deepcopy(store) is not store, "a release that was not read"


@pytest.mark.parametrize("key", ["plain", "a b", "a:b", "a,b", "[a]", "a\\b", "{x}"])
def test_an_escaped_key_is_read_as_it_was(key: str) -> None:
    from loralab.config.overrides import read, to_override

    assert read(f"x={to_override({key: 1})}").value() == {key: 1}


def test_an_outcome_is_the_value_or_the_exception_and_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    done, failed = JobReturn(status=JobStatus.COMPLETED), JobReturn(status=JobStatus.FAILED)
    done.return_value, failed.return_value = 0.5, KeyError("x")
    assert compat.outcome(done) == 0.5 and isinstance(compat.outcome(failed), KeyError)
    assert capsys.readouterr() == ("", "")
