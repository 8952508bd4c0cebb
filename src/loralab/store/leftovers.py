"""What killed processes leave in a store's caches: temporary files, which the next run or sweep removes."""

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["remove_old_temporaries"]

# No write of a cache takes this long, so nobody can be at a file that is older.
OLD_SECONDS = 24 * 3600.0


def remove_old_temporaries(store: Path) -> None:
    """Removes what `loralab.files` began to write in cache/ and diffs/ more than a day ago; errors are passed over."""
    before = time.time() - OLD_SECONDS
    for path in list(_temporaries(store / "cache")) + list(_temporaries(store / "diffs")):
        with contextlib.suppress(OSError):
            if _last_changed(path) < before:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()


def _temporaries(directory: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(directory):
        found = [name for name in (*folders, *files) if name.startswith(".") and name.endswith(".tmp")]
        yield from (Path(root) / name for name in found)
        folders[:] = [name for name in folders if name not in found]


def _last_changed(path: Path) -> float:
    """The latest modification of the file, or of the directory and what is in it."""
    inside = (Path(root) / name for root, folders, files in os.walk(path) for name in (*folders, *files))
    return max(each.lstat().st_mtime for each in (path, *inside))
