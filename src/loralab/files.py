"""Atomic writes of files and directories, fingerprints of their contents, and locks. Any module may import it."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from stat import S_ISREG
from typing import Any

from loralab.errors import UserError

__all__ = [
    "atomic_directory",
    "atomic_path",
    "fingerprint",
    "locked",
    "read_regular",
    "remove_temporaries",
    "write_bytes",
    "write_json",
    "write_text",
]

_RUST = re.compile(r"\(os error (\d+)\)")  # how Rust writes an error of the system; safetensors raises its own class


@contextlib.contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yields a temporary path beside `target`; on success fsyncs it and renames it over `target`.

    A reader sees the complete old or new file, also after a crash of the process or the machine. Raises UserError
    where `target` is a folder, a FIFO or a device, such as /dev/null, which the renaming would replace.
    """
    if target.exists() and not target.is_file():
        raise UserError(f"{target}: is there already and is not a regular file; name another")
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
        _sync_directory(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_directory(target: Path) -> Iterator[Path]:
    """Yields a temporary directory beside `target`; on success fsyncs its files and renames it to `target`.

    `target` does not exist until it is complete. Raises UserError where it exists and is not an empty directory, and
    OSError also where a library written in Rust, such as safetensors, hits a full disk.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target}: is there already and is not an empty directory; name a new one")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp"))
    try:
        yield temporary
        for path in temporary.rglob("*"):
            if path.is_file():
                with path.open("rb") as stream:
                    os.fsync(stream.fileno())
                path.chmod(0o666 & ~_umask())  # safetensors makes files that only their owner can read
        temporary.chmod(0o777 & ~_umask())
        temporary.replace(target)
        _sync_directory(target.parent)
    except Exception as error:  # safetensors has an error of its own for a full disk; all others are raised unchanged
        number = _RUST.search(str(error))
        if isinstance(error, OSError) or number is None:
            raise
        code = int(number[1])
        raise OSError(code, os.strerror(code), str(target)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_regular(path: Path) -> bytes:
    """The content of a regular file; raises OSError for anything else, such as a FIFO, which would block."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if not S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        with open(handle, "rb", closefd=False) as stream:
            return stream.read()
    finally:
        os.close(handle)


def write_bytes(target: Path, content: bytes) -> None:
    """Writes `content` to `target`, atomically and durably."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)


def write_text(target: Path, content: str) -> None:
    """Writes `content` (UTF-8) to `target`, atomically and durably."""
    write_bytes(target, content.encode())


def write_json(target: Path, content: Any, *, check: Callable[[], None] = lambda: None) -> None:
    """Writes `content` as indented JSON; raises ValueError for NaN and infinities (a missing number is null).

    check: called just before the file takes its place; it may raise.
    """
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    with atomic_path(target) as temporary:
        temporary.write_bytes(text.encode())
        check()


def locked(handle: int) -> int | None:
    """The file descriptor, with an exclusive lock; None where another process has the lock, and then it is closed.

    Raises OSError, with the file still open, where its file system has no locks.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


def remove_temporaries(directory: Path) -> None:
    """Removes temporary files of killed processes under `directory`; call only when no other process writes there."""
    for leftover in list(directory.rglob(".*.tmp")):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink(missing_ok=True)  # removed with its directory


def fingerprint(paths: Iterable[Path], *, cache: Path | None = None) -> str:
    """SHA-256 (first 16 hex digits) over the names and contents of `paths`, in the order of their names.

    cache: a directory for the digest of each file, keyed by path, size and times (a modification time can be put
    back, that of the last change of the inode can't), so that gigabytes of weights are read once.
    """
    total = hashlib.sha256()
    for path in sorted(paths, key=lambda p: p.name):
        total.update(f"{path.name}\0{_digest(path, cache)}\0".encode())
    return total.hexdigest()[:16]


def _digest(path: Path, cache: Path | None) -> str:
    stat = path.stat()
    stamp = f"{path.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ctime_ns}\0{stat.st_ino}"
    entry = None if cache is None else cache / "digests" / hashlib.sha256(stamp.encode()).hexdigest()[:32]
    if entry is not None and (known := _sealed(entry, stamp)) is not None:
        return known
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if entry is not None:
        with contextlib.suppress(OSError):  # a read-only store has no cache
            write_text(entry, f"{digest} {_seal(stamp, digest)}")
    return digest


def _sealed(entry: Path, stamp: str) -> str | None:
    """The digest in a file of the cache; None where there is none, or where the file is damaged."""
    try:
        digest, seal = read_regular(entry).decode("ascii").split(" ")
    except (OSError, ValueError):
        return None
    return digest if seal == _seal(stamp, digest) else None


def _seal(stamp: str, digest: str) -> str:
    return hashlib.sha256(f"{stamp}\0{digest}".encode()).hexdigest()[:16]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
