"""Who may write a run: one process at a time, by OS locks on a file of <store>/locks and on the run's directory.

The locks die with their process. The lock file serves until the run's directory exists. Either can be deleted while a
run trains: the other still keeps a second process out, and `check` tells the first that its directory is gone.
"""

import fcntl
import os
import time
from pathlib import Path

from loralab.errors import UserError
from loralab.files import locked

__all__ = ["Hold", "LostRunError", "is_held"]

POLL_SECONDS = 0.02


class LostRunError(UserError):
    """The run's directory, or a file in it, was removed or replaced while the run trained; nothing more is written."""


class Hold:
    """This process's hold of the run in `directory`; file: its lock file, which is made and stays.

    A file system without locks on directories (NFS) leaves the lock file alone, which then has to stay in its place.
    """

    def __init__(self, file: Path, directory: Path) -> None:
        self.file, self.directory = file, directory
        self._file: int | None = None  # the locked file descriptors
        self._directory: int | None = None
        self._directory_is_locked = False

    def take(self, seconds: float) -> bool:
        """Takes the locks, trying for this long; returns whether it holds the run. Raises OSError without access."""
        end = time.monotonic() + seconds
        while not self._taken():
            if time.monotonic() >= end:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def make_directory(self) -> None:
        """Creates the run's directory if it was not there when the hold began, and locks it.

        Raises UserError where another process has it, and LostRunError where it was there and is gone.
        """
        if self._directory is not None:
            self.check()
            return
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise UserError(f"{self.directory} is not a directory; move it away, and try again") from None
        if not self._directory_locked():
            raise UserError(f"run {self.directory.name} is being trained by another process; wait for it")

    def check(self) -> None:
        """Raises LostRunError unless the directory, or the lock file in its stead, is the one that was locked."""
        if self._directory is not None and not _is_at(self._directory, self.directory):
            raise LostRunError(
                f"{self.directory} was removed or replaced while its run trained, so the run has ended and written "
                "nothing more; the same command trains it from the start"
            )
        if not self._directory_is_locked and self._file is not None and not _is_at(self._file, self.file):
            raise LostRunError(
                f"{self.file} was removed while {self.directory.name} trained, so another process may train it; this "
                "one has ended; the same command goes on from the last checkpoint"
            )

    def release(self) -> None:
        """Lets go of the run."""
        for handle in (self._directory, self._file):
            if handle is not None:
                os.close(handle)
        self._directory = self._file = None
        self._directory_is_locked = False

    def _taken(self) -> bool:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self._file = locked(os.open(self.file, os.O_RDWR | os.O_CREAT, 0o644))
        if self._file is None:
            return False
        # a file that was removed between the two calls locks nobody out
        if _is_at(self._file, self.file) and self._directory_locked():
            return True
        self.release()
        return False

    def _directory_locked(self) -> bool:
        """Locks the directory if it is there; False if another process has it."""
        try:
            handle = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            return True
        try:
            self._directory = locked(handle)
        except OSError:  # no locks on directories here
            self._directory = handle
            return True
        self._directory_is_locked = self._directory is not None
        return self._directory_is_locked


def is_held(file: Path, directory: Path) -> bool:
    """Whether a live process holds the run; makes no file. False where this process may not even look."""
    for path in (file, directory):
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: it needs no right to write
        except BlockingIOError:
            return True
        except OSError:  # no locks on directories here
            continue
        finally:
            os.close(handle)
    return False


def _is_at(handle: int, path: Path) -> bool:
    """Whether the open file is the one at `path`."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except OSError:
        return False
