"""A study: its runs, their directories, and the runs that the second stage adds once the first is finished."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from loralab.errors import UserError
from loralab.runs.plan import plan
from loralab.runs.record import fail
from loralab.sweeps.study import Study, Unfinished, open_study, studies
from tests.small_runs import CONF, config
from tests.small_studies import FIRST, NAME, SETTINGS, checkout, first_stage, write

TRAIN = CONF.parent / "train.py"
FRESH = (100, 101)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the first stage finished; not to be changed."""
    return first_stage(tmp_path_factory)


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the study of two stages the only one."""
    checkout(tmp_path / "checkout", monkeypatch)


def axes(study: Study, stage: str) -> list[tuple[Any, ...]]:
    names = ("seed", "lora.ratio", "optim.lr")
    return [tuple(cell.axes[name] for name in names) for cell in study.cells() if cell.stage == stage]


def best(store: Path) -> dict[int, float]:
    """By ratio, the rate with the lowest mean validation loss, from the records."""
    losses: dict[tuple[int, float], list[float]] = {}
    for path in store.glob("runs/*/record.json"):
        record = json.loads(path.read_text())
        if record["config"]["seed"] in (0, 1):
            key = (record["config"]["lora"]["ratio"], record["config"]["optim"]["lr"])
            losses.setdefault(key, []).append(record["metrics"]["validation"]["last"]["loss"])
    assert len(losses) == 4 and {len(values) for values in losses.values()} == {2}
    return {
        ratio: min((fmean(values), rate) for (other, rate), values in losses.items() if other == ratio)[1]
        for ratio in (1, 16)
    }


def test_the_studies_are_the_files_of_sweeps() -> None:
    folder = CONF.parent / "sweeps"
    assert studies() == sorted(path.relative_to(folder).as_posix()[:-5] for path in folder.rglob("*.yaml"))
    assert "first" in studies()


def test_a_study_at_its_smoke_size_wants_tiny_runs_of_the_same_axes(tmp_path: Path) -> None:
    with open_study("first", ("smoke=true", "tracker=none"), store=tmp_path) as study:
        assert study.name == "first" and study.smoke and study.store == tmp_path
        assert [cell.axes for cell in study.cells()] == [
            {"lora.ratio": ratio, "seed": seed} for ratio in (1, 4, 16) for seed in (0, 1)
        ]
        configs = [study.planned(job).config for job in study.grid]
    assert {(c.model.name, c.task.train_rows, c.train.steps) for c in configs} == {("tiny", 64, 4)}
    assert list((tmp_path).glob("runs/*")) == [], "nothing is trained"


def test_a_cell_is_the_run_that_the_same_settings_give(tmp_path: Path) -> None:
    with open_study("first", SETTINGS, store=tmp_path) as study:
        cells = study.cells()
        last = cells[-1]
        assert (len(cells), last.stage) == (18, "grid")
        assert last.axes == {"optim.lr": 0.0032, "lora.ratio": 16, "seed": 1}
    alone = config(tmp_path, *SETTINGS, "task=rotten_tomatoes", "train.precision=bf16", "train.batch_size=8",
                   "optim.lr=0.0032", "lora.ratio=16", "seed=1")  # fmt: skip
    assert plan(alone).directory.path.name == last.run


def test_arguments_pin_and_add_axes(tmp_path: Path) -> None:
    with open_study("first", (*SETTINGS, "seed=5", "lora.rank=2,4"), store=tmp_path) as study:
        found = [cell.axes for cell in study.cells()]
    assert len(found) == 18 and {axes["lora.rank"] for axes in found} == {2, 4}
    assert all("seed" not in axes for axes in found), "it varies no more"


def test_runs_are_grouped_by_study_where_the_user_names_no_group(tmp_path: Path) -> None:
    def group(*arguments: str) -> str | None:
        with open_study("first", ("smoke=true", *arguments), store=tmp_path) as study:
            return study.planned(study.grid[0]).config.tracker.group

    assert (group(), group("tracker=none")) == ("first", "first")
    for given in ("tracker.group=mine", "++tracker.group=mine"):
        assert group(given) == group("tracker=none", given) == "mine"


def test_a_group_that_the_study_names_is_kept(ours: None, tmp_path: Path) -> None:
    file = tmp_path / "checkout" / "sweeps" / f"{NAME}.yaml"
    file.write_text(file.read_text() + "tracker: {group: ours}\n")
    for given, group in (((), "ours"), (("++tracker.group=mine",), "mine")):
        with open_study(NAME, (*SETTINGS, *given), store=tmp_path) as study:
            assert {study.planned(job).config.tracker.group for job in study.grid} == {group}


def test_an_override_of_the_store_counts(tmp_path: Path) -> None:
    with open_study("first", ("smoke=true", f"store={tmp_path / 'mine'}"), store=tmp_path / "other") as study:
        assert study.store == tmp_path / "mine"
    with open_study("first", ("smoke=true",), store=tmp_path / "with, odd (text)") as study:
        assert study.store == tmp_path / "with, odd (text)"


@pytest.mark.parametrize(
    ("name", "arguments", "line"),
    [
        ("fist", (), r"no study is called 'fist'; did you mean first\? sweeps/ has .*first.*"),
        ("first", ("lora.nope=1",), r"lora.nope: no such key; lora has rank"),
        ("first", ("lora.rank=x",), r"lora.rank: got x; it must be a whole number"),
        ("first", ("lora.init=C",), r"lora.init: got 'C'; allowed: A, B \(in the job .*lora.init=C"),
        ("first", ("model=nope",), r"model: got 'nope'; allowed: .*minilm"),
        ("first", ("nonsense",), r"nonsense: got no value; write KEY=VALUE"),
        ("first", ("smoke=maybe",), r"smoke: got maybe; it must be true or false"),
        ("first", ("hydra.sweeper.size=big",), r"hydra.sweeper.size: got 'big'; allowed: full, smoke"),
        ("first", ("sweeps=other",), r"sweeps"),
        ("first", ("~lora.nope",), r"lora.nope"),
    ],
)
def test_a_mistake_is_one_line(name: str, arguments: tuple[str, ...], line: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=line) as caught, open_study(name, arguments, store=tmp_path) as study:
        study.cells()
    assert "\n" not in str(caught.value)


def test_each_arm_has_its_own_window(ours: None, store: Path) -> None:
    with open_study(NAME, SETTINGS, store=store) as study:
        assert axes(study, "grid") == FIRST
    assert studies() == [NAME]


def test_there_is_no_second_stage_before_the_first_is_done(ours: None, store: Path, tmp_path: Path) -> None:
    shutil.copytree(store, tmp_path / "store")
    with open_study(NAME, SETTINGS, store=tmp_path / "store") as study:
        shutil.rmtree(study.planned(study.grid[3]).directory.path)
        fail(study.planned(study.grid[5]), "out of luck", started=0.0)
        with pytest.raises(Unfinished, match="2 of 8 runs of the first stage are not done"):
            study.second_jobs()
        assert study.second_cells() == [] and len(study.cells()) == 8


def test_the_second_stage_is_the_selected_configurations_on_fresh_seeds(ours: None, store: Path) -> None:
    chosen = best(store)
    with open_study(NAME, SETTINGS, store=store) as study:
        assert axes(study, "confirm") == [(seed, r, rate) for r, rate in chosen.items() for seed in FRESH]
        assert [{"lora.ratio": r, "optim.lr": rate} for r, rate in chosen.items()] == [
            {name: each[name] for name in ("lora.ratio", "optim.lr")} for each in study.chosen()
        ]
        first, second = ({cell.run for cell in study.cells() if cell.stage == stage} for stage in ("grid", "confirm"))
    assert len(first) == 8 and len(second) == 4 and first.isdisjoint(second)


def test_the_second_stage_has_the_first_ones_settings(ours: None, store: Path) -> None:
    with open_study(NAME, (*SETTINGS, "lora.dropout=0"), store=store) as study:
        one = study.planned(study.second_jobs()[0]).config
    assert (one.model.name, one.train.steps, one.task.train_rows, one.seed) == ("tiny", 3, 64, 100)


def sweep(folder: Path, *arguments: str) -> tuple[int, str]:
    """The exit status and output of `python train.py sweeps=two_stages`, started in an empty folder."""
    place = [f"hydra.searchpath=[file://{folder / 'configs'}]", f"store={folder / 'store'}", "hydra.launcher.slots=2"]
    command = [sys.executable, str(TRAIN), f"+sweeps={NAME}", *SETTINGS, *place, *arguments]
    (folder / "empty").mkdir(exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=folder / "empty", env=environment, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert list((folder / "empty").iterdir()) == []
    return done.returncode, done.stdout


def written(store: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in store.glob("runs/*/record.json")}


@pytest.mark.slow
def test_a_study_of_two_stages_is_one_command(tmp_path: Path) -> None:
    folder = tmp_path
    write(folder / "configs")
    status, text = sweep(folder)
    assert status == 0, text
    assert "8 runs: 8 success" in text and "4 runs: 4 success" in text and "second stage: 2 selected" in text
    assert f"{NAME}-" in text and ": 4 configurations, ranked by validation/loss: mean over 2 seeds" in text
    (noted,) = (folder / "store" / "sweeps").glob(f"{NAME}-*.json")
    assert [len(json.loads(noted.read_text())[key]) for key in ("runs", "fresh")] == [8, 4]
    chosen = best(folder / "store")
    records = [json.loads(path.read_text())["config"] for path in (folder / "store").glob("runs/*/record.json")]
    found = sorted((c["seed"], c["lora"]["ratio"], c["optim"]["lr"]) for c in records)
    assert found == sorted([*FIRST, *((seed, r, rate) for r, rate in chosen.items() for seed in FRESH)])

    before = written(folder / "store")
    status, text = sweep(folder)
    assert status == 0, text
    assert "8 runs, done before: 8 success" in text and "4 runs, done before: 4 success" in text
    assert written(folder / "store") == before, "a run was trained again"

    status, text = sweep(folder, "train.max_length=32,4096")
    assert status == 1, text
    assert text.count("train.max_length: got 4096; tiny takes at most ") >= 8
    assert "8 failed" in text and "second stage" not in text
    assert {name: written(folder / "store")[name] for name in before} == before
