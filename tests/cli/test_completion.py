"""A shell is offered what the line can go on with: commands, options, runs, studies, keys and values of settings."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live_sweeps import LiveSweep
from tests.small_runs import CONF

pytest.importorskip("argcomplete")


def offered(line: str, folder: Path) -> list[str]:
    """What the command prints for a line whose end is the cursor, as argcomplete's function in a shell asks for it."""
    answer = folder / "answer"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(CONF.parent / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "LORALAB_STORE": str(folder),
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_SUPPRESS_SPACE": "1",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    command = [sys.executable, "-m", "loralab"]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
    return answer.read_text().split("\n")


def test_commands_and_options_are_offered(tmp_path: Path) -> None:
    assert offered("loralab st", tmp_path) == ["status", "study"]
    assert offered("loralab show --j", tmp_path) == ["--json"]


def test_runs_are_offered_by_name_and_by_hash(tmp_path: Path) -> None:
    (tmp_path / "runs" / "tiny-trec-0123456789").mkdir(parents=True)
    assert offered("loralab show ", tmp_path) == ["tiny-trec-0123456789"]
    assert offered("loralab show 01", tmp_path) == ["0123456789"]


def test_studies_are_offered_those_of_the_current_folder_too(tmp_path: Path) -> None:
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "lr_mine.yaml").touch()
    assert offered("loralab study lr_", tmp_path) == ["lr_grid", "lr_mine"]


def test_sweeps_are_offered(tmp_path: Path) -> None:
    LiveSweep(tmp_path, [{"seed": "0"}])
    assert offered("loralab watch ", tmp_path) == ["last", "sweep-0123456789"]


def test_sweeps_are_offered_by_their_ids(tmp_path: Path) -> None:
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "first-0123456789.json").touch()
    assert offered("loralab sweep ", tmp_path) == ["last", "all", "first-0123456789"]


def test_settings_are_offered_as_hydra_has_them(tmp_path: Path) -> None:
    assert offered("loralab train task=trec model=tin", tmp_path) == [
        "model=tiny",
        "model=tiny_decoder",
        "model=tiny_seq2seq",
    ]
    assert offered("loralab tune lora.rank", tmp_path) == ["lora.rank=", "lora.rank_pattern."]
