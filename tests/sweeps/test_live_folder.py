"""What a sweep says of itself while it trains: its runs, those at work, the time left; and nothing that can fail it."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from loralab import places
from loralab.sweeps.live_folder import KEPT, MOST_AT_ONCE, About, LiveFolder, about_sweep
from loralab.sweeps.study import open_sweep
from loralab.sweeps.sweep_file import sweep_id
from loralab.tuning.progress import TuneProgress
from tests.live_sweeps import LiveSweep, key

SETTINGS = [{"seed": "0"}, {"seed": "1"}, {"seed": "2"}]


def written(store: Path, file: str, name: str = "sweep-0123456789") -> Any:
    return json.loads((store / "live" / name / file).read_text())


def test_a_sweep_says_what_it_trains_and_how_far_it_is(tmp_path: Path) -> None:
    sweep = LiveSweep(tmp_path, SETTINGS, command="train it")
    assert [run["settings"]["seed"] for run in written(tmp_path, "sweep.json")["runs"]] == ["0", "1", "2"]
    assert written(tmp_path, "now.json") | {"at": 0} == {
        "at": 0, "state": "training", "outlook": "about 2 min left", "running": [],
    }  # fmt: skip
    sweep.begins(1)
    sweep.folder.said = 0.0  # a while ago
    sweep.comes_to(1, 4)
    assert written(tmp_path, "now.json")["running"] == [{"run": key(1), "slot": 1, "step": 4, "steps": 10}]
    sweep.ends(1)
    assert written(tmp_path, "now.json")["running"] == []
    sweep.observer.stopping(0)
    assert written(tmp_path, "now.json")["state"] == "stopping"
    sweep.folder.close()
    assert written(tmp_path, "now.json")["state"] == "stopped"
    assert sorted(path.name for path in (tmp_path / "live" / "sweep-0123456789").iterdir()) == [
        "lock", "now.json", "sweep.json",
    ]  # fmt: skip


def test_steps_alone_are_written_about_once_a_second(tmp_path: Path) -> None:
    sweep = LiveSweep(tmp_path, SETTINGS)
    sweep.begins(0)
    for step in range(1, 9):
        sweep.comes_to(0, step)
    assert written(tmp_path, "now.json")["running"][0]["step"] == 0


def test_a_later_launch_adds_its_runs_and_keeps_the_others(tmp_path: Path) -> None:
    folder = LiveSweep(tmp_path, SETTINGS[:2]).folder
    folder.launched({key(0): {"seed": "0", "train.pause_at": "0.6"}, key(7): {}}, to_train=[key(0)], slots=1, at=1.0)
    runs = written(tmp_path, "sweep.json")["runs"]
    assert [run["run"] for run in runs] == [key(1), key(0), key(7)]
    assert [run["launched"] is None for run in runs] == [False, False, True], "the last was done before"


def test_each_process_of_the_same_sweep_has_its_own_folder_and_a_later_one_the_first(tmp_path: Path) -> None:
    about = About("x", "sweep", "sweep", "")
    both = [LiveFolder(tmp_path, about) for _ in range(2)]
    assert [folder.path for folder in both] == [tmp_path / "live" / "x", tmp_path / "live" / "x-2"]
    both[0].close()
    assert LiveFolder(tmp_path, about).path == tmp_path / "live" / "x"
    many = [LiveFolder(tmp_path, about) for _ in range(MOST_AT_ONCE)]
    assert many[-1].path is None


def test_folders_of_the_oldest_sweeps_are_removed_but_never_that_of_one_at_work(tmp_path: Path) -> None:
    made = []
    for number in range(KEPT + 2):
        made.append(LiveFolder(tmp_path, About(f"s{number:02}", "sweep", "sweep", "")))
        os.utime(tmp_path / "live" / f"s{number:02}" / "lock", (number, number))
    for folder in made[1:]:
        folder.close()
    LiveFolder(tmp_path, About("next", "sweep", "sweep", "")).close()
    there = {path.name for path in (tmp_path / "live").iterdir()}
    assert there == {"next", *(f"s{number:02}" for number in range(KEPT + 2) if number != 1)}
    made[0].close()
    LiveFolder(tmp_path, About("next", "sweep", "sweep", "")).close()
    assert not {"s00", "s02"} & {path.name for path in (tmp_path / "live").iterdir()}


def test_a_store_that_cannot_be_written_to_ends_no_sweep(tmp_path: Path) -> None:
    (tmp_path / "live").touch()
    sweep = LiveSweep(tmp_path, SETTINGS)
    sweep.begins(0)
    sweep.folder.close()
    other = LiveSweep(tmp_path / "other", SETTINGS)
    shutil.rmtree(tmp_path / "other" / "live")
    other.begins(0)
    other.folder.close()
    assert not (tmp_path / "other" / "live").exists()


def test_the_id_is_that_of_the_runs_whatever_their_order() -> None:
    assert sweep_id("paper/x", ["b", "a"]) == sweep_id("paper/x", ["a", "b", "a"])
    assert sweep_id("sweep", ["a"]) != sweep_id("sweep", ["b"])
    assert sweep_id("paper/x", ["a"]).startswith("paper_x-")


@pytest.mark.parametrize(
    ("words", "title", "command", "figures"),
    [
        (["seed=0,1", "task=trec"], "sweep", "train.py -m seed=0,1 task=trec", ["STORE/figures/sweep-ID.png"]),
        (["hydra/launcher=basic", "seed=0,1"], "sweep", "train.py -m hydra/launcher=basic seed=0,1",
         ["STORE/figures/sweep-ID.png"]),
        (["sweeps=first", "seed=0"], "study first", "train.py sweeps=first seed=0",
         ["STORE/figures/first-ID.png", "here/analysis/figures/first.png"]),
    ],
)  # fmt: skip
def test_it_is_called_by_its_study_and_by_its_command(
    words: list[str], title: str, command: str, figures: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_sweep([*words, f"store={tmp_path}"]) as study:
        master = study.composer.master
    monkeypatch.setattr(places, "HERE", Path("here"))
    about = about_sweep(master, ["a", "b"])
    assert about.id == sweep_id(study.name or "sweep", ["a", "b"]) and about.title == title
    assert about.command.partition(" store=")[0].replace("loralab train", "train.py").endswith(command)
    shown = [str(path).replace(about.id[-10:], "ID").replace(str(tmp_path), "STORE") for path in about.figures]
    assert shown == figures


def test_a_tuning_session_says_itself_what_it_is_and_keeps_one_folder_for_all_its_launches(tmp_path: Path) -> None:
    from hydra_plugins.loralab.pool_launcher import PoolLauncher  # here: Hydra loads its plugins anew
    from hydra_plugins.loralab.tune_sweeper import TuneSweeper

    about = About("mine-0123", "tune", "tuning", "")
    sweeper, launcher = TuneSweeper(), PoolLauncher(1, 1, 1, None, "continue")
    launcher.setup(hydra_context=None, task_function=None, config=OmegaConf.create({"store": str(tmp_path)}))  # type: ignore[arg-type]
    sweeper.launcher = launcher
    sweeper._attach(TuneProgress(["tuning"], None, lambda: 0.0, about))
    live = launcher._live(["a"])
    assert live.path == tmp_path / "live" / "mine-0123" and launcher._live(["b"]) is live
    live.close()
