"""`loralab study new` writes two files that run unchanged, and overwrites nothing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from loralab.studies.study_module import load_module
from loralab.sweeps.study import open_study
from tests.cli.test_main import said
from tests.processes import Process
from tests.small_runs import CONF
from tests.small_studies import NAME, checkout


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return checkout(tmp_path / "checkout", monkeypatch)


def test_both_files_are_written_and_the_next_steps_are_printed(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = said(capsys, "study", "new", "mine")
    files = [root / "sweeps" / "mine.yaml", root / "analysis" / "mine.py"]
    assert (status, err) == (0, "") and out.splitlines()[:2] == list(map(str, files))
    assert "loralab study mine smoke=true" in out and "python train.py sweeps=mine --dry-run" in out
    assert all("NAME" not in file.read_text() for file in files)
    axes = load_module("mine").axes
    with open_study("mine") as study:
        assert len(study.grid) == 6 and set(study.axes) <= set(axes)
        assert study.header["command"] == "loralab study mine" and study.header["cost"] == "6 runs"


def test_what_is_there_is_not_overwritten(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (root / "sweeps" / f"{NAME}.yaml").read_text()
    status, out, err = said(capsys, "study", "new", NAME)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert f"sweeps/{NAME}.yaml is there already; choose another name" in err
    assert (root / "sweeps" / f"{NAME}.yaml").read_text() == text and not (root / "analysis").exists()
    (root / "analysis").mkdir()
    (root / "analysis" / "mine.py").write_text("x = 1\n")
    assert said(capsys, "study", "new", "mine")[0] == 2 and not (root / "sweeps" / "mine.yaml").exists()


@pytest.mark.parametrize("name", ["Mine", "my-study", "../mine", "paper/mine", "2nd", "all", "new", "none", "seed=0"])
def test_a_name_that_cannot_be_one_is_refused(name: str, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = said(capsys, "study", "new", name)
    assert (status, out, err.count("\n")) == (2, "", 1) and err.startswith(f"error: study new: got {name!r}; a name")
    assert [path.name for path in (root / "sweeps").iterdir()] == [f"{NAME}.yaml"]


@pytest.mark.parametrize("name", ["con", "nul", "a" * 300])
def test_a_name_that_no_file_can_have_everywhere_is_refused(
    name: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = said(capsys, "study", "new", name)
    assert (status, out, err.count("\n")) == (2, "", 1) and err.startswith("error: study new: got '")
    assert [path.name for path in (root / "sweeps").iterdir()] == [f"{NAME}.yaml"]


@pytest.mark.parametrize("arguments", [(), ("one", "two")])
def test_it_takes_one_name(arguments: tuple[str, ...], root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = said(capsys, "study", "new", *arguments)
    assert status == 2 and err.startswith("error: study new: got ") and "it takes one name" in err


@pytest.mark.slow
def test_a_new_study_is_trained_collected_and_drawn_by_one_command(tmp_path: Path) -> None:
    """In a separate checkout, with real runs of the tiny backbone."""
    folder, store = tmp_path / "checkout", tmp_path / "store"
    for name in ("conf", "src"):
        shutil.copytree(CONF.parent / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copy(CONF.parent / "train.py", folder)
    environment = {**os.environ, "PYTHONPATH": str(folder / "src"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "loralab.cli.main", "study"]
    made = subprocess.run([*command, "new", "mine"], env=environment, cwd=folder, capture_output=True, text=True)
    assert (made.returncode, made.stderr) == (0, "")
    settings = ("smoke=true", "tracker=none", "train.device=cpu", "train.threads=1", "hydra.launcher.slots=1")
    lines = (
        Process([*command, "mine", *settings, "--store", str(store)], tmp_path / "output", env=environment, cwd=folder)
        .ends()
        .splitlines()
    )
    assert lines[-4].startswith("6 runs (6 success) in ")
    assert [Path(line).suffix for line in lines[-3:]] == [".png", ".pdf", ".txt"]
    assert all(Path(line).is_relative_to(store) and Path(line).stat().st_size > 50 for line in lines[-3:])
