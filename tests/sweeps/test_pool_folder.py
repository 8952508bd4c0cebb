"""A pool's folder lives as long as its process, and no longer than until the next pool."""

import multiprocessing
import os
import shutil
import tempfile
import time
from pathlib import Path

import pytest

from loralab.sweeps.pool_folder import OLD_SECONDS, PoolFolder, remove_dead_folders


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def _make_and_die() -> None:
    (PoolFolder().there() / "worker-0").write_text("last words")
    os._exit(9)


def test_only_the_folder_of_a_dead_process_is_removed(tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=_make_and_die)
    process.start()
    process.join()
    (left,) = tmp_path.iterdir()
    alive = PoolFolder()
    (tmp_path / "loralab-pool-of-mine").touch()
    (tmp_path / "loralab-pool-begun").mkdir()  # its process has not come to the lock yet
    (tmp_path / "other").mkdir()
    remove_dead_folders()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == sorted([alive.path.name, "loralab-pool-of-mine", "loralab-pool-begun", "other"])
    assert left.name not in names
    alive.remove()
    assert not alive.path.exists()


def test_a_folder_without_a_lock_goes_after_a_day(tmp_path: Path) -> None:
    old, used = tmp_path / "loralab-pool-old", tmp_path / "loralab-pool-used"
    for folder in (old, used):
        folder.mkdir()
        (folder / "worker-0").touch()
    for path in (old / "worker-0", old, used):
        os.utime(path, (time.time() - OLD_SECONDS - 60,) * 2)
    remove_dead_folders()
    assert not old.exists() and used.exists()


def test_a_folder_that_was_removed_is_made_again_and_held_again(tmp_path: Path) -> None:
    folder = PoolFolder()
    for lost in (folder.path, folder.path / "lock", tmp_path):
        shutil.rmtree(lost) if lost.is_dir() else lost.unlink()
        assert folder.there() == folder.path and folder.path.is_dir()
        remove_dead_folders()
        assert folder.path.is_dir()
    folder.remove()
