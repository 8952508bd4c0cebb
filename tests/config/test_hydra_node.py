"""Tests of Hydra's own settings: nothing that they name is run, and their types are checked before Hydra uses them."""

import copy
from pathlib import Path
from typing import Any

import pytest
from hydra import compose
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from loralab.config.compose import CONF, configs
from loralab.config.explain import explain
from loralab.config.hydra_node import check_package
from loralab.errors import UserError

DEFAULT = "hydra/job_logging=default"
FILE = "hydra.job_logging.handlers.file"
ENDS = "loralab starts only what Hydra, its launchers and loralab itself bring; remove it"
RUNS_CODE = {
    ("+hydra.callbacks.x._target_=tempfile.mkdtemp",): "hydra.callbacks: got {'x': {'_target_': 'tempfile.mkdtemp'}}; ",
    ("+hydra.callbacks.x=1",): "hydra.callbacks: got {'x': 1}; ",
    ("hydra.callbacks=${oc.decode:'{x: 1}'}",): "hydra.callbacks: ",
    ("hydra.launcher._target_=os.system",): "hydra.launcher._target_: got 'os.system'; allowed: hydra._internal.",
    ("hydra.launcher._target_=hydra_plugins.loralab.study_sweeper.StudySweeper",): "hydra.launcher._target_: got ",
    ("hydra.sweeper._target_=os.system",): "hydra.sweeper._target_: got 'os.system'; allowed: hydra._internal.",
    ("+hydra.launcher._args_=[1]",): f"hydra.launcher._args_: {ENDS}",
    ("+hydra.launcher._partial_=true",): f"hydra.launcher._partial_: {ENDS}",
    ("+hydra.launcher.x={_target_:os.getcwd}",): f"hydra.launcher.x._target_: {ENDS}",
    ("hydra.sweeper.params={}", "+hydra.sweeper.arms=[{_target_:os.getcwd}]"): f"hydra.sweeper.arms.0._target_: {ENDS}",
    ("+hydra.sweeper.confirm='${oc.decode:${hydra.job.name}}'", "hydra.job.name='{_target_: x}'"): "hydra.sweeper.",
    (DEFAULT, "+hydra.job_logging.formatters.x.class=os.x"): "hydra.job_logging.formatters.x.class: got 'os.x'; ",
    (DEFAULT, f"{FILE}.class=logging.handlers.SMTPHandler"): f"{FILE}.class: got 'logging.handlers.SMTPHandler'; ",
    (DEFAULT, f"{FILE}.filename=ext://os.x"): f"{FILE}.filename: got 'ext://os.x'; {ENDS}",
    (DEFAULT, f"{FILE}.filename=cfg://root"): f"{FILE}.filename: got 'cfg://root'; {ENDS}",
    (DEFAULT, f"{FILE}.filename=${{hydra.job.name}}"): f"{FILE}.filename: got '${{hydra.job.name}}'; {ENDS}",
    (DEFAULT, "hydra.job_logging.root.handlers=${oc.decode:'[1]'}"): "hydra.job_logging.root.handlers: ",
    (DEFAULT, f"{FILE}.filename='ext${{hydra.job.name}}'"): f"{FILE}.filename: got 'ext${{hydra.job.name}}'; {ENDS}",
    (DEFAULT, f"{FILE}.filename='ext:/${{hydra.job.name}}'"): f"{FILE}.filename: got 'ext:/",
    (DEFAULT, f"{FILE}.filename='${{hydra.job.name}}.log'", "hydra.job.name='ext://evil'"): f"{FILE}.filename: got ",
    (DEFAULT, f"{FILE}.filename='${{hydra.job.name}}.log'", "hydra.job.name='${store}://evil'"): f"{FILE}.filename: ",
    ("hydra.runtime.output_dir='ext://evil.x'",): "hydra.runtime.output_dir: Hydra sets it; set hydra.run.dir",
    ("hydra.searchpath=[pkg://json]",): "hydra.searchpath: got pkg://json, and a package's code runs when ",
    ("hydra.searchpath=[pkg://nosuch/conf]",): "hydra.searchpath: got pkg://nosuch/conf, and a package's code runs",
}
WRONG = {
    "hydra.launcher=3": "hydra.launcher: got 3; choose one as hydra/launcher=NAME, and set its keys",
    "hydra.sweeper=null": "hydra.sweeper: got None; choose one as hydra/sweeper=NAME, and set its keys",
    "hydra.job_logging={}": None,
    "hydra.verbose={a:1}": "hydra.verbose: got {'a': 1}; it must be true, false, or names of loggers, as [a,b]",
    "hydra.verbose=[a,1]": "hydra.verbose: got ['a', 1]; it must be true, false, or names of loggers",
    "hydra.verbose=null": "hydra.verbose: got None; it must be true, false, or names of loggers",
    f"hydra.run.dir={'A' * 300}": "hydra.run.dir: got 'AAAA",
    "hydra.sweep.dir=": "hydra.sweep.dir: got an empty name; it is a folder",
    "hydra.run=${hydra.help}": "hydra.run: got '${hydra.help}'; set its keys",
    "hydra.sweep=${hydra.run}": "hydra.sweep: got '${hydra.run}'; set its keys",
    "hydra.job.env_set=${hydra.help}": "hydra.job.env_set: got '${hydra.help}'; write it as ",
}
LET_THROUGH = (
    "hydra/job_logging=default", "hydra/job_logging=stdout", "hydra/job_logging=disabled",
    "hydra/hydra_logging=default", "hydra/hydra_logging=hydra_debug", "hydra/launcher=basic", "hydra/launcher=slurm",
    "hydra/launcher=submitit_local", "hydra/launcher=ray", "hydra/launcher=ray_cluster", "hydra/sweeper=basic",
    "hydra.verbose=true", "hydra.verbose=[a,b]", "hydra.verbose=a", "hydra.launcher.slots=3", "hydra.searchpath=[]",
    "+hydra.job.env_set={OMP_NUM_THREADS:2,CUDA_VISIBLE_DEVICES:1,MY_PATH:x}",
)  # fmt: skip


def line_of(*overrides: str) -> str | None:
    """The line of the error with which composing ends; None where it does not."""
    with configs():
        try:
            compose("config", list(overrides), return_hydra_config=True)
        except Exception as error:
            return explain(error) or repr(error)
    return None


@pytest.mark.parametrize("overrides", RUNS_CODE, ids=" ".join)
def test_a_setting_that_would_run_code_is_refused(overrides: tuple[str, ...]) -> None:
    pool = ("hydra/launcher=pool", "hydra/sweeper=study")
    line = line_of(*pool, *overrides)
    assert line is not None and line.startswith(RUNS_CODE[overrides]), line


@pytest.mark.parametrize("override", WRONG, ids=lambda override: override[:30])
def test_a_value_that_hydra_would_trip_over_is_refused(override: str) -> None:
    line, expected = line_of(override), WRONG[override]
    assert (line is None) if expected is None else (line is not None and line.startswith(expected)), line


@pytest.mark.parametrize("override", LET_THROUGH)
def test_what_hydra_and_the_documented_plugins_ship_is_let_through(override: str) -> None:
    if any(word in override for word in ("slurm", "submitit")):
        pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    if "ray" in override:
        pytest.importorskip("hydra_plugins.hydra_ray_launcher")
    assert line_of(override) is None


@pytest.mark.parametrize(
    "filename",
    [
        "${hydra.runtime.output_dir}/mine.log",
        "${hydra.job.name}.log",
        "/logs/${now:%H}.log",
        "logs/${seed}.log",
        "a.log",
    ],
)
def test_a_log_is_named_by_what_hydra_knows(filename: str) -> None:
    assert line_of(DEFAULT, f"{FILE}.filename='{filename}'") is None


@pytest.mark.parametrize("name", ["PATH", "HOME", "GIT_EXTERNAL_DIFF", "LD_PRELOAD", "PYTHONPATH", "path"])
def test_a_variable_that_chooses_programs_is_refused(name: str) -> None:
    """A run's record asks git for the commit: `git` is looked up in PATH, and its variables name programs."""
    found = line_of(f"+hydra.job.env_set.{name}=x")
    assert found == f"hydra.job.env_set: got {name}, which chooses what programs are run; set it in your shell"


def test_the_parts_and_colours_of_other_plugins_are_let_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of hydra-optuna-sweeper and hydra-colorlog, which need not be installed."""
    store = ConfigStore.instance()
    monkeypatch.setattr(store, "repo", copy.deepcopy(store.repo))
    store.store(group="hydra/sweeper/sampler", name="mine", node={"_target_": "optuna.samplers.TPESampler", "seed": 1})
    brought: dict[str, Any] = {
        "_target_": "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
        "params": None,
        "sampler": {},
    }
    store.store(group="hydra/sweeper", name="mine", node=brought)
    assert line_of("hydra/sweeper=mine", "+hydra/sweeper/sampler=mine") is None
    other = line_of("hydra/sweeper=mine", "+hydra/sweeper/sampler=mine", "hydra.sweeper.sampler._target_=os.getcwd")
    assert other == f"hydra.sweeper.sampler._target_: {ENDS}"
    colours = {"version": 1, "root": {}, "formatters": {"c": {"()": "colorlog.ColoredFormatter", "format": "a"}}}
    store.store(group="hydra/job_logging", name="mine", node=colours)
    assert line_of("hydra/job_logging=mine") is None


def test_a_file_is_checked_like_the_command_line(tmp_path: Path) -> None:
    """As with --config-dir: a group of another person's files."""
    (tmp_path / "x").mkdir()
    file = tmp_path / "x" / "y.yaml"
    for node, line in (
        ({"callbacks": {"x": {"_target_": "tempfile.mkdtemp", "dir": str(tmp_path), "prefix": "made"}}}, "callbacks: "),
        ({"launcher": {"_target_": "os.getcwd"}}, "launcher._target_: "),
        (
            {"job_logging": {"version": 1, "root": {}, "handlers": {"x": {"()": "os.getcwd"}}}},
            "job_logging.handlers.x.(): ",
        ),
    ):
        file.write_text("# @package _global_\n" + OmegaConf.to_yaml({"hydra": node}))
        found = line_of(f"hydra.searchpath=[file://{tmp_path}]", "+x=y")
        assert found is not None and found.startswith(f"hydra.{line}"), found
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b"3", "Hydra cannot compose these settings: OSError: Invalid loaded object type: int"),
        (b"a: [1", "Hydra cannot compose these settings: ParserError: while parsing a flow sequence in "),
        (b"a: \xff", "Hydra cannot compose these settings: UnicodeDecodeError: "),
        (b"a: !!python/object/apply:os.getcwd []", "Hydra cannot compose these settings: ConstructorError: could not "),
        (b"seed: 1\nseed: 2", "Hydra cannot compose these settings: ConstructorError: while constructing a mapping "),
        (b"a: &a [*a]", "Hydra cannot compose these settings: RecursionError: "),
        (b"defaults: 3", "Hydra cannot compose these settings: ValueError: Invalid defaults list in 'x/y'"),
        (b"# @package _global_\n1: 3\ntrue: 5", "1: no such key; the configuration has "),
        (b'# @package _global_\nhydra: {job: {env_set: {A: "a\\0b"}}}', "hydra.job.env_set: got {'A': 'a\\x00b'}; "),
    ],
)
def test_a_damaged_file_is_one_line(text: bytes, line: str, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "y.yaml").write_bytes(text)
    found = line_of(f"hydra.searchpath=[file://{tmp_path}]", "+x=y")
    assert found is not None and found.startswith(line) and found.isprintable(), found


def test_a_primary_config_cannot_search_a_package(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("hydra: {searchpath: ['pkg://json']}\n")
    with configs(tmp_path), pytest.raises(UserError, match=r"^hydra\.searchpath: got pkg://json, and"):
        compose("mine")


@pytest.mark.parametrize("path", ["hydra.conf", "hydra_plugins.hydra_ray_launcher.conf"])
def test_packages_of_hydra_and_its_plugins_are_searched(path: str) -> None:
    check_package(path)
    assert CONF.is_dir()


@pytest.mark.parametrize("path", ["evil", "hydra", "hydra.conf/../evil", "hydraevil.x", "", "hydra_pluginsx.y"])
def test_another_package_is_not(path: str) -> None:
    with pytest.raises(UserError, match=r"^hydra\.searchpath: got pkg://"):
        check_package(path)
