"""One command trains, collects and draws a study. Every study runs at its smoke size, on the tiny backbone.

The command itself starts a worker that imports torch, so it has three of them alone: one of one stage, one of two, and
one with arms. The others' runs are trained here, one after the other; `first` is one of them too, for the gate.
"""

import os
import sys
from pathlib import Path

import pytest

from loralab.cli.main import main
from loralab.store.predictions import unpacked
from loralab.studies import captions, committed, results
from loralab.studies.study_module import load_module
from loralab.sweeps.study import open_study, studies
from tests.processes import Warm
from tests.small_runs import CONF
from tests.small_studies import MEASURED, train

FEW = "task.eval_rows=64"
ONE = "hydra.launcher.slots=1"  # worker, which imports torch once
SETTINGS = ("smoke=true", "tracker=none", "train.device=cpu", "train.threads=1", "train.max_length=16", ONE, FEW)
FEWER = {
    "ratio": ("lora.init=A",),  # number of cells, to limit the test's time
    "ratio_sql": ("train.max_length=128",),  # whole answers, in bytes
    "forgetting": ("train.max_length=128",),
}
COMMANDS = ("first", "ratio", "methods")
BY_COMMAND_ALONE = ("ratio", "methods")
OTHERS = [n for n in studies() if not n.startswith("paper/") and n not in BY_COMMAND_ALONE and n not in MEASURED]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_one_command_trains_collects_and_draws(name: str, store: Path, tmp_path: Path) -> None:
    settings = (*SETTINGS, *FEWER.get(name, ()))
    command = [sys.executable, "-m", "loralab.cli.main", "study", name, *settings, "--store", str(store)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    said = Warm(command, tmp_path / "output", env=environment, cwd=CONF.parent).ends()
    check(name, settings, store, said)


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_its_runs_are_trained_collected_and_drawn(name: str, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = (*SETTINGS, *FEWER.get(name, ()))
    with open_study(name, settings, store=store) as study:
        train(study)
    for command in ("collect", "figure"):
        assert main([command, name, *settings, "--store", str(store)]) == 0
    check(name, settings, store, capsys.readouterr().out)


def test_best_ratio_uses_the_runs_of_lr_grid(tmp_path: Path) -> None:
    runs = {}
    for name in ("best_ratio", "lr_grid"):
        with open_study(name, SETTINGS, store=tmp_path) as study:
            runs[name] = {cell.run for cell in study.cells()}
    assert runs["best_ratio"] <= runs["lr_grid"]


def check(name: str, settings: tuple[str, ...], store: Path, said: str) -> None:
    """Checks that all parts of a study exist: runs, CSV, figures, claims."""
    path = results.target(name, settings, store)
    pictures = [store / "figures" / f"{path.stem}.{kind}" for kind in ("png", "pdf", "txt")]
    assert said.splitlines()[-3:] == [str(picture) for picture in pictures]
    assert all(picture.stat().st_size > 50 for picture in pictures)
    frame, analysis = results.load_results(name, *settings, path=path), load_module(name)
    assert set(frame["status"]) == {"success"} and set(frame.get("model", ["tiny"])) <= {"tiny", "tiny_decoder"}
    runs = frame.drop_duplicates("hash")
    with open_study(name, settings, store=store) as study:
        assert len(runs) == len(study.cells()) and (runs["stage"] == "grid").sum() == len(study.grid)
    there = {path.name for path in (store / "runs").iterdir()}
    assert set(runs["hash"]) <= {run.rpartition("-")[2] for run in there}
    assert len(analysis.summary(frame)) and f"{len(runs)} runs (0 diverged)" in analysis.caption(frame)
    asked = committed.questions(name, frame)
    assert all(len(question.claims) == len(question.verdicts) > 0 for question in asked)
    if name == "convergence":
        assert frame.groupby("hash")["step"].agg(list).tolist() == [[0, 5, 10]] * 8
        assert frame["train/loss"].isna().tolist() == (frame["step"] == 0).tolist()
        assert (frame.groupby("hash")["seconds"].diff().dropna() > 0).all()
    if name == "ratio":
        fresh = frame["stage"] == "confirm"
        rights = [unpacked(text).mean() for text in frame.loc[fresh, "correct"]]
        assert frame.loc[fresh, "test/accuracy"].tolist() == pytest.approx(rights)
        assert frame.loc[~fresh, "correct"].isna().all()


@pytest.mark.slow
@pytest.mark.parametrize("name", MEASURED)
def test_one_command_measures_and_draws(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", name, "smoke=true", "--store", str(tmp_path)]) == 0
    path = results.target(name, ["smoke=true"], tmp_path)
    pictures = [tmp_path / "figures" / f"{path.stem}.{kind}" for kind in ("png", "pdf", "txt")]
    frame, analysis = results.load_results(name, "smoke=true", path=path), load_module(name)
    assert capsys.readouterr().out.splitlines() == [f"{len(frame)} rows in {path}", *map(str, pictures)]
    assert all(picture.stat().st_size > 50 for picture in pictures)
    assert len(analysis.summary(frame)) and f"{captions.code(frame)}." in analysis.caption(frame)
    asked = committed.questions(name, frame)
    assert all(len(question.claims) == len(question.verdicts) > 0 for question in asked)
    assert not (tmp_path / "runs").exists()
