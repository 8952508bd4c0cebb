"""The folder of a pool's workers for what they print; the next pool removes one whose processes were all killed."""

import contextlib
import os
import shutil
import tempfile
import time
from pathlib import Path

from loralab.files import locked

__all__ = ["PoolFolder", "remove_dead_folders"]

PREFIX = "loralab-pool-"
LOCK = "lock"  # a file that the pool keeps locked while it lives
OLD_SECONDS = 24 * 3600.0  # after which a folder without it, of an older loralab, counts as left


class PoolFolder:
    """A temporary folder of this process, with a lock that dies with it."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        self.handle = _locked(self.path / LOCK)

    def there(self) -> Path:
        """The folder, made again if a cleaner of temporary files has removed it, or its lock."""
        if self.handle is None or not (self.path / LOCK).exists():
            self._unlock()
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.handle = _locked(self.path / LOCK)
        return self.path

    def remove(self) -> None:
        """Removes the folder with what is in it."""
        self._unlock()
        shutil.rmtree(self.path, ignore_errors=True)

    def _unlock(self) -> None:
        if self.handle is not None:
            os.close(self.handle)
        self.handle = None


def remove_dead_folders() -> None:
    """Removes this user's folders of pools that no longer live."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if path.is_symlink() or not path.is_dir() or path.stat().st_uid != os.getuid():
                continue
            if (path / LOCK).exists():
                handle = _locked(path / LOCK)
                if handle is not None:
                    shutil.rmtree(path, ignore_errors=True)
                    os.close(handle)
            elif max(each.lstat().st_mtime for each in (path, *path.iterdir())) < time.time() - OLD_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


def _locked(path: Path) -> int | None:
    """The file, made if need be, with its lock; None where another process has it, or no locks are to be had."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        return locked(handle)
    except OSError:
        os.close(handle)
        return None
