"""`loralab train` is train.py, `python -m loralab` is loralab, and the version names the code."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import loralab
from loralab.cli.dispatch import ENTRIES, dispatched
from loralab.cli.main import _parser
from tests.cli.test_main import said
from tests.small_runs import CONF, SMALL


def test_the_version_names_the_code_and_its_folder(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = said(capsys, "--version")
    assert (status, err) == (0, "")
    assert re.fullmatch(
        rf"loralab {loralab.__version__}, code [0-9a-f]{{16}} \((commit|no git).*\), in /.+/loralab\n", out
    )


def test_other_commands_are_left_to_argparse() -> None:
    assert dispatched(["runs"], _parser) is None and dispatched([], _parser) is None


def test_the_entries_are_among_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    out = said(capsys, "--help")[1]
    assert all(f"\n    {name} " in out for name in ENTRIES)
    assert "did you mean train?" in said(capsys, "trian")[2]


def _printed(arguments: list[str], folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(CONF.parent / "src")}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("entry", ENTRIES)
def test_an_entry_composes_what_its_file_does(entry: str, tmp_path: Path) -> None:
    words = ["--cfg", "job", "seed=3"]
    of_file = _printed([str(CONF.parent / f"{entry}.py"), *words], tmp_path)
    assert _printed(["-m", "loralab", entry, *words], tmp_path) == of_file and "seed: 3" in of_file


@pytest.mark.slow
def test_a_multirun_of_the_entry_uses_the_pool(tmp_path: Path) -> None:
    """Its workers import the task function from loralab.cli.train."""
    out = _printed(
        ["-m", "loralab", "train", "-m", *SMALL, "train.steps=2", "seed=0,1", "hydra.launcher.slots=1"], tmp_path
    )
    assert len(list((tmp_path / "outputs" / "runs").iterdir())) == 2 and "2 runs: 2 success" in out
