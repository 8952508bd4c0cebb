"""loralab's additions to Hydra: studies are found from any folder, Hydra's commands work, and a mistake is one line."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.plugins.sweeper import Sweeper

from hydra_plugins.loralab.conf_path import GroupsSource
from hydra_plugins.loralab.sweeps_path import SweepsSource
from loralab.config.compose import composed
from loralab.config.schema import from_hydra
from loralab.errors import UserError
from loralab.sweeps.study import open_study, studies
from tests.processes import Warm
from tests.small_runs import CONF, SMALL
from tests.small_studies import MEASURED

TRAIN = CONF.parent / "train.py"


def command(where: Path, *arguments: str) -> tuple[int, str, str]:
    """The exit status, standard output and standard error of `python train.py ARGUMENTS`, run in the folder."""
    out, err = where / "said" / "output", where / "said" / "errors"
    environment = {**os.environ, "LORALAB_STORE": str(where / "store"), "OMP_NUM_THREADS": "1"}
    started = Warm([sys.executable, str(TRAIN), *arguments], out, errors=err, cwd=where, env=environment)
    return started.status(), out.read_text(), err.read_text()


@pytest.mark.parametrize("argument", ["+sweeps=first", "sweeps=first"])
def test_a_study_is_found_from_any_folder(argument: str, tmp_path: Path) -> None:
    status, out, err = command(tmp_path, argument, "smoke=true", "--dry-run")
    assert (status, err) == (0, "")
    assert out.startswith("study first (smoke size)\n")
    with open_study("first", ("smoke=true",), store=tmp_path / "store") as study:
        runs = [cell.run.rpartition("-")[2] for cell in study.cells()]
    assert [line.split()[0] for line in out.splitlines() if " missing " in line and ":" not in line] == runs
    assert list(tmp_path.glob("store/runs/*")) == [], "a dry run trains nothing"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("sweeps=frist",), "sweeps: got 'frist'; allowed: .*first.*; did you mean first\\?"),
        (("sweeps=first", "hydra.launcher.slots=0"), "hydra.launcher.slots: got 0; it must be a number at least 1"),
        (("sweeps=first", "hydra.launcher.timeout=0"), "hydra.launcher.timeout: got 0.* it must be a number above 0"),
        (("sweeps=first", "hydra.launcher.slots_per_gpu=0"), "hydra.launcher.slots_per_gpu: got 0; .* at least 1"),
        (("sweeps=first", "hydra.launcher.pack=0"), "hydra.launcher.pack: got 0; it must be .* at least 1, or auto"),
        (("-m", "seed=0,1", "hydra.launcher.on_error=stpo"), "hydra.launcher.on_error: got 'stpo'; .*'stop'\\?"),
        (("sweeps=first", "hydra.launcher.slot=1"), "hydra.launcher.slot: Hydra has no such key"),
        (("sweeps=first", "hydra.sweeper.size=big"), "hydra.sweeper.size: got 'big'; allowed: full, smoke"),
        (("sweeps=first", "smoke=perhaps"), "smoke: got perhaps; it must be true or false"),
        (("-m", "lora.rank=0,4", "train.device=cpu"), r"lora.rank: got 0; it must be a number at least 1 \(.*job"),
    ],
)
def test_a_mistake_is_one_line_before_anything_starts(arguments: tuple[str, ...], line: str, tmp_path: Path) -> None:
    status, out, err = command(tmp_path, *SMALL, *arguments)
    assert (status, out) == (2, "")
    assert re.fullmatch(f"error: {line}.*\n", err), err
    assert list(tmp_path.glob("store/runs/*")) == []


def test_help_shows_the_studies_as_a_group_and_none_of_our_machinery(tmp_path: Path) -> None:
    status, out, err = command(tmp_path, "--help")
    assert (status, err) == (0, "")
    assert "\n  python train.py model=roberta " in out
    groups = dict(re.findall(r"^(\w+): (.+)$", out[: out.index("Configuration (")], re.MULTILINE))
    assert list(groups) == ["method", "model", "sweeps", "task", "tracker"]
    assert groups["sweeps"] == ", ".join(study for study in studies() if "/" not in study)
    assert groups["tracker"] == "mlflow, none, tensorboard, trackio, wandb"
    assert "sweeper" not in out and {path.name for path in tmp_path.iterdir()} == {"said"}


def test_the_configuration_of_a_run_has_nothing_of_ours(tmp_path: Path) -> None:
    status, out, err = command(tmp_path, "--cfg", "job")
    assert (status, err) == (0, "")
    assert "sweeps" not in yaml.safe_load(out)


def test_hydra_finds_one_plugin_of_each_kind() -> None:
    for kind, name in ((Launcher, "PoolLauncher"), (Sweeper, "StudySweeper"), (SearchPathPlugin, "SweepsPath")):
        assert [found.__name__ for found in Plugins.instance().discover(kind)].count(name) == 1


def test_what_hydra_imports_at_every_start_is_light() -> None:
    code = (
        "import sys, pkgutil, importlib, hydra_plugins.loralab as ours\n"
        "for module in pkgutil.iter_modules(ours.__path__, 'hydra_plugins.loralab.'):\n"
        "    importlib.import_module(module.name)\n"
        "print(sorted({'torch', 'pandas', 'transformers', 'wandb', 'rich', 'multiprocessing'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"


@pytest.fixture
def source(tmp_path: Path) -> SweepsSource:
    """A folder with studies, a subfolder of studies, and other files."""
    (tmp_path / "paper").mkdir()
    for name in ("b.yaml", "a.yaml", "notes.txt", "paper/big.yaml"):
        (tmp_path / name).write_text("# @package _global_\nseed: 1\n")
    return SweepsSource("loralab", f"sweeps://{tmp_path}")


def test_the_folder_is_the_group_sweeps_and_nothing_else(source: SweepsSource) -> None:
    assert source.available() and not SweepsSource("loralab", "sweeps:///nowhere").available()
    assert source.list("", None) == source.list("", ObjectType.GROUP) == ["sweeps"]
    assert source.list("", ObjectType.CONFIG) == []
    assert source.list("sweeps", ObjectType.CONFIG) == ["a", "b"]
    assert source.list("sweeps", ObjectType.GROUP) == ["paper"]
    assert source.list("sweeps/paper", ObjectType.CONFIG) == ["big"]
    assert source.is_group("sweeps/paper") and not source.is_group("paper")
    assert source.is_config("sweeps/a") and source.is_config("sweeps/paper/big.yaml")
    assert not source.is_config("a") and not source.is_config("sweeps/nope")


def test_a_study_is_read_with_its_header(source: SweepsSource) -> None:
    found = source.load_config("sweeps/paper/big")
    assert found.config == {"seed": 1} and found.header["package"] == "_global_"
    bare = Path(source.path, "bare.yaml")
    bare.write_text("seed: 1\n")
    assert source.load_config("sweeps/bare").header["package"] == "_global_", "where the file does not say it"
    bare.write_text("seed: [1\n")
    with pytest.raises(UserError, match=r"^sweeps/bare\.yaml, line 2: .*, which is no YAML$"):
        source.load_config("sweeps/bare")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder outside the checkout, with conf/ and sweeps/ of its own."""
    for name, text in {
        "conf/model/mine.yaml": "name: mine\npath: weights\ndefault_lr: 0.001\n",
        "conf/model/tiny.yaml": "name: tiny\ndropout: 0.5\ndefault_lr: 0.001\n",
        "conf/config.yaml": "# @package _global_\nseed: 99\n",
        "conf/database/mysql.yaml": "user: x\n",
        "sweeps/first.yaml": "# @package _global_\nhydra: {sweeper: {params: {seed: [7]}}}\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr("loralab.places.HERE", tmp_path)
    return tmp_path


def test_settings_and_studies_of_the_current_folder_are_found_first(here: Path) -> None:
    assert composed(["model=mine"])["model.path"] == "weights"
    assert composed(["model=tiny"])["model.dropout"] == 0.5
    assert composed(["model=minilm"])["model.name"] == "minilm" and "ratio" in studies()
    with open_study("first", store=here) as study:
        assert [job for job in study.grid if "seed=7" in job] == study.grid
    (here / "conf" / "model" / "mine.yaml").write_text("name: [mine\n")
    with pytest.raises(UserError, match=r"^conf/model/mine\.yaml, line 2: .*, which is no YAML$"):
        composed(["model=mine"])


def test_every_default_stays_loralabs(here: Path) -> None:
    assert composed([])["seed"] == 0
    source = GroupsSource("here", f"groups://{here / 'conf'}")
    assert source.list("", ObjectType.CONFIG) == [] and source.list("", ObjectType.GROUP) == ["database", "model"]
    assert source.list("model", ObjectType.CONFIG) == ["mine", "tiny"] and not source.is_config("config")


@pytest.mark.usefixtures("here")
def test_another_application_of_hydra_is_left_alone(tmp_path: Path) -> None:
    from hydra import compose, initialize_config_dir

    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "config.yaml").write_text("defaults: [_self_]\nuser: me\n")
    with initialize_config_dir(str(tmp_path / "app"), version_base="1.3"):
        assert compose("config") == {"user": "me"}
        assert compose("config", ["+model=mine"])["model"] == "mine", "a value: there is no such group"


@pytest.mark.parametrize("name", studies())
def test_every_study_composes_and_says_what_it_is_for(name: str, tmp_path: Path) -> None:
    text = (CONF.parent / "sweeps" / f"{name}.yaml").read_text().splitlines()
    assert text[0] == "# @package _global_"
    assert re.match(r"# [\w`].{20,}", text[1]), "a line for people"
    with open_study(name, ("tracker=none",), store=tmp_path) as study:
        header = study.header
        assert header.keys() >= {"claim", "metric", "command", "cost"}
        if name in MEASURED:
            assert header["command"] == f"loralab study {name}"
            return
        assert header["command"] in (f"python train.py sweeps={name}", f"loralab study {name}")
        assert re.fullmatch(r"(validation|test\w*)/\w+", header["metric"])
        for job in (study.grid[0], study.grid[-1]):
            study.composer.settings(job)  # composed only: its weights and texts may not exist here
        assert len(set(study.grid)) == len(study.grid)
        assert header["cost"].startswith(f"{len(study.grid)} runs") or study.spec.confirm is not None


@pytest.mark.parametrize("name", [name for name in studies() if not name.startswith("paper/") and name not in MEASURED])
def test_every_study_has_a_smoke_size_of_tiny_runs(name: str, tmp_path: Path) -> None:
    with open_study(name, ("smoke=true", "tracker=none"), store=tmp_path) as study:
        configs = [from_hydra(study.composer.settings(job)) for job in study.grid]
        study.planned(study.grid[0])
        study.planned(study.grid[-1])
    assert 2 <= len(configs) <= 32
    for config in configs:
        assert (
            config.model.name in ("tiny", "tiny_decoder")
            and config.task.train_rows is not None
            and config.task.train_rows <= 128
        )
        assert config.train.steps is not None and config.train.steps <= 100
