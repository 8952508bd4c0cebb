"""One process at a time holds a run, whatever is deleted beside it."""

import contextlib
import fcntl
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from loralab.errors import UserError
from loralab.store.run_lock import Hold, LostRunError, is_held


def holds(store: Path) -> Hold:
    return Hold(store / "locks" / "0123456789.lock", store / "runs" / "tiny-x-0123456789")


@contextlib.contextmanager
def held(store: Path) -> Iterator[Hold]:
    """A run that trains."""
    hold = holds(store)
    assert hold.take(0)
    try:
        hold.make_directory()
        yield hold
    finally:
        hold.release()


def looks(hold: Hold) -> bool:
    return is_held(hold.file, hold.directory)


def _replace(path: Path) -> None:
    path.rename(path.with_name("old"))
    path.mkdir(parents=True)


def _by_file(path: Path) -> None:
    shutil.rmtree(path)
    path.touch()


def test_a_held_run_is_not_taken_and_a_released_one_is(tmp_path: Path) -> None:
    with held(tmp_path) as first:
        assert looks(first)
        assert not holds(tmp_path).take(0.05)
    assert not looks(first)
    with held(tmp_path):
        pass


def test_looking_makes_no_file(tmp_path: Path) -> None:
    assert not looks(holds(tmp_path / "store"))
    assert not (tmp_path / "store").exists()


def test_before_there_is_a_directory_the_file_holds_the_run(tmp_path: Path) -> None:
    first = holds(tmp_path)
    assert first.take(0) and not holds(tmp_path).take(0)
    first.release()


@pytest.mark.parametrize("lose", ["locks", "locks/0123456789.lock"])
def test_without_its_lock_file_a_run_goes_on_and_stays_with_its_process(tmp_path: Path, lose: str) -> None:
    with held(tmp_path) as first:
        path = tmp_path / lose
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        first.check()
        assert looks(first)
        assert not holds(tmp_path).take(0.05)
        first.check()
    assert holds(tmp_path).take(0)


LOSSES: dict[str, Callable[[Path], object]] = {
    "the directory": lambda store: shutil.rmtree(store / "runs" / "tiny-x-0123456789"),
    "all runs": lambda store: shutil.rmtree(store / "runs"),
    "the store": shutil.rmtree,
    "replaced": lambda store: _replace(store / "runs" / "tiny-x-0123456789"),
    "moved": lambda store: (store / "runs").rename(store / "old"),
    "a file": lambda store: _by_file(store / "runs"),
}


@pytest.mark.parametrize("lose", LOSSES.values(), ids=LOSSES)
def test_who_has_lost_the_directory_is_told_and_makes_none(tmp_path: Path, lose: Callable[[Path], object]) -> None:
    store = tmp_path / "store"
    with held(store) as first:
        lose(store)
        before = sorted(tmp_path.rglob("*"))
        for ask in (first.check, first.make_directory):
            with pytest.raises(LostRunError, match="was removed or replaced while its run trained"):
                ask()
        assert sorted(tmp_path.rglob("*")) == before


def test_after_the_store_was_deleted_another_process_may_train_and_the_first_may_not(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with held(store) as first:
        shutil.rmtree(store)
        with held(store) as second:
            second.check()
            with pytest.raises(LostRunError):
                first.check()


def test_of_two_that_hold_different_files_the_second_does_not_get_the_directory(tmp_path: Path) -> None:
    """The locks are deleted before the directory is made."""
    first, second = holds(tmp_path), holds(tmp_path)
    assert first.take(0)
    shutil.rmtree(tmp_path / "locks")
    assert second.take(0)
    first.make_directory()
    with pytest.raises(UserError, match="is being trained by another process"):
        second.make_directory()
    first.release()
    second.release()


def test_without_locks_on_directories_the_lock_file_has_to_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on NFS."""
    flock = fcntl.flock

    def files_only(handle: int, how: int) -> None:
        if Path(f"/proc/self/fd/{handle}").readlink().is_dir():
            raise OSError(9, "Bad file descriptor")
        flock(handle, how)

    monkeypatch.setattr(fcntl, "flock", files_only)
    with held(tmp_path) as first:
        first.check()
        assert looks(first) and not holds(tmp_path).take(0)
        first.file.unlink()
        with pytest.raises(LostRunError, match=r"\.lock was removed"):
            first.check()


def test_a_file_in_the_place_of_the_directory_is_one_line(tmp_path: Path) -> None:
    hold = holds(tmp_path)
    hold.directory.parent.mkdir()
    hold.directory.touch()
    assert hold.take(0)
    with pytest.raises(UserError, match="is not a directory; move it away"):
        hold.make_directory()
    hold.release()


def test_no_handle_is_left_open(tmp_path: Path) -> None:
    with held(tmp_path):
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(5):
            assert not holds(tmp_path).take(0) and looks(holds(tmp_path))
        assert len(list(Path("/proc/self/fd").iterdir())) == before
