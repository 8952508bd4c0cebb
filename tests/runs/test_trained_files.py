"""The trained files of a run are regular files with the names of its method's format; no link is followed."""

import os
import shutil
from pathlib import Path

import pytest

from loralab.errors import UserError
from loralab.methods.registry import CATALOGUE
from loralab.runs.export import export
from loralab.runs.load import load_run
from loralab.runs.trained_files import regular, trained_files
from loralab.store.run_directory import RunDirectory

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def copied(finished: RunDirectory, tmp_path: Path) -> RunDirectory:
    """A run that may be changed."""
    path = tmp_path / "runs" / finished.path.name
    shutil.copytree(finished.path, path)
    return RunDirectory(path)


def refused(run: RunDirectory, line: str) -> None:
    """load_run and both exports end in one line that begins with the run's name; nothing is written."""
    out = run.path.parent.parent / "out"
    with pytest.raises(UserError, match=rf"^{run.path.name}: {line}[^\n]*$"):
        load_run(run.path)
    for merged in (False, True):
        with pytest.raises(UserError, match=rf"^{run.path.name}: {line}[^\n]*$"):
            export(run, out, merged=merged, dtype="fp32")
    assert not out.exists()


def test_the_files_of_a_format_are_found_and_no_others(copied: RunDirectory) -> None:
    (copied.adapter / "notes.txt").write_text("mine")
    found = trained_files(copied, CATALOGUE["lora"])
    assert found == {name: copied.adapter / name for name in ("adapter_config.json", WEIGHTS)}


def test_what_lies_beside_them_is_not_exported(copied: RunDirectory, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (copied.adapter / "x").symlink_to(tmp_path / "secret")
    (copied.adapter / "folder").symlink_to(tmp_path)
    (copied.adapter / "notes.txt").write_text("mine")
    export(copied, tmp_path / "out", merged=False, dtype="fp32")
    assert not {"x", "folder", "notes.txt"} & {path.name for path in (tmp_path / "out").iterdir()}


def test_a_link_in_place_of_a_file_is_refused(copied: RunDirectory, tmp_path: Path) -> None:
    for name in (WEIGHTS, "adapter_config.json"):
        (copied.adapter / name).rename(tmp_path / name)
        (copied.adapter / name).symlink_to(tmp_path / name)
        refused(copied, f"adapter/{name} is a link, which is not followed; put the file itself there")
        (copied.adapter / name).unlink()
        shutil.copy(tmp_path / name, copied.adapter / name)


def test_a_link_in_place_of_the_folder_is_refused(copied: RunDirectory, tmp_path: Path) -> None:
    copied.adapter.rename(tmp_path / "elsewhere")
    copied.adapter.symlink_to(tmp_path / "elsewhere")
    refused(copied, "adapter is a link, which is not followed")


def test_a_missing_file_and_one_that_is_no_file_are_refused(copied: RunDirectory) -> None:
    (copied.adapter / WEIGHTS).unlink()
    refused(copied, f"has no adapter/{WEIGHTS}; it is damaged, so train it again")
    os.mkfifo(copied.adapter / WEIGHTS)
    refused(copied, f"adapter/{WEIGHTS} is not a regular file")


def test_a_store_behind_a_link_is_followed(copied: RunDirectory, tmp_path: Path) -> None:
    """Only what is inside the run counts: a whole store may lie on another disk."""
    (tmp_path / "store").symlink_to(tmp_path / "runs")
    there = RunDirectory(tmp_path / "store" / copied.path.name)
    assert regular(there, "record.json").is_file()
