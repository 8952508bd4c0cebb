"""What other packages' launchers and sweepers train has a page while it trains, and ends with its answer."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from loralab.cli import hydra_main
from loralab.cli.other_plugins import follow_others
from loralab.config.compose import configs
from loralab.inspect.watched_sweep import WatchedSweep, newest
from loralab.sweeps.sweep_file import find_sweep
from loralab.training.signals import Interrupted
from tests.small_runs import SMALL

BASIC = ("hydra/launcher=basic", "hydra/sweeper=basic")
QUICK = ("train.steps=1", "train.eval_every=1")


@pytest.fixture(autouse=True)
def _no_job_left() -> Iterator[None]:
    yield
    HydraConfig.instance().cfg = None


def multirun(store: Path, *overrides: str, task: Callable[[DictConfig], Any] = hydra_main.train) -> None:
    """A multirun in this process, as `python train.py -m` starts it."""
    with configs():
        hydra: Any = GlobalHydra.instance().hydra
        words = ["hydra.mode=MULTIRUN", *SMALL, *QUICK, f"store={store}", *overrides]
        with follow_others():
            hydra.multirun("config", task, words, with_log_configuration=False)


def test_a_grid_of_hydras_own_sweeper_and_launcher_has_a_page_and_ends_with_its_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    looks = []

    def task(config: DictConfig) -> Any:
        name = newest(tmp_path)
        assert name is not None
        looks.append(WatchedSweep(tmp_path, name).look())
        return hydra_main.train(config)

    multirun(tmp_path, *BASIC, "lora.ratio=1,4", "hydra.sweeper.max_batch_size=1", task=task)
    assert [(each["state"], each["summary"]) for each in looks] == [
        ("training", "0 of 1 done, 1 waiting"), ("training", "1 of 2 done, 1 waiting"),
    ]  # fmt: skip
    found = find_sweep(tmp_path, "last")
    ended = WatchedSweep(tmp_path, found.id).look()
    assert (ended["state"], ended["summary"]) == ("ended", "2 of 2 done; it has ended")
    assert (len(found.runs), found.axes, found.free) == (2, ("lora.ratio",), True), "of both launches"
    said = capsys.readouterr().out
    assert f"{found.id}: 2 configurations, ranked by validation/accuracy" in said
    assert "train it: " in said and (tmp_path / "figures" / f"{found.id}.png").is_file()


def test_a_sweep_that_is_stopped_says_so_on_its_page_and_has_no_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def task(config: DictConfig) -> None:
        raise Interrupted(15)

    with pytest.raises(Interrupted):
        multirun(tmp_path, *BASIC, "seed=0,1", task=task)
    name = newest(tmp_path)
    assert name is not None and WatchedSweep(tmp_path, name).look()["state"] == "stopped"
    assert "ranked" not in capsys.readouterr().out


def test_a_study_sweep_of_another_launcher_has_a_page_and_one_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    multirun(tmp_path, "hydra/launcher=basic", "lora.ratio=1,4")
    assert newest(tmp_path) == find_sweep(tmp_path, "last").id
    assert capsys.readouterr().out.count("ranked by") == 1


def test_a_mistake_in_a_job_is_the_launchers_to_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Exception, match=r"lora\.rank: got 0"):
        multirun(tmp_path, *BASIC, "lora.rank=0,4")
    assert not (tmp_path / "live").exists() and "ranked" not in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")  # of Optuna, about what its sweeper asks
def test_optunas_sweeper_ends_with_the_answer_of_all_its_trials(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="needs hydra-optuna-sweeper (docs/sweeps.md)")
    sampled = ("lora.ratio=choice(1,4)", "optim.lr=tag(log,interval(1e-4,1e-2))", "lora.dropout=interval(0,0.3)")
    asked = ("hydra.sweeper.n_trials=6", "hydra.sweeper.n_jobs=3", "hydra.sweeper.direction=maximize")
    multirun(tmp_path, "hydra/launcher=basic", "hydra/sweeper=optuna", *asked, *sampled)
    found = find_sweep(tmp_path, "last")
    assert len(found.runs) == 6 and set(found.axes) == {"lora.ratio", "optim.lr", "lora.dropout"}
    assert f"{found.id}: 6 configurations" in capsys.readouterr().out


@pytest.mark.slow
def test_joblibs_launcher_trains_the_runs_of_a_grid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs hydra-joblib-launcher (docs/sweeps.md)")
    multirun(tmp_path, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "lora.ratio=1,4")
    assert newest(tmp_path) == find_sweep(tmp_path, "last").id
    assert "2 configurations, ranked by" in capsys.readouterr().out
