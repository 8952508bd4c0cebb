"""metrics.jsonl and the count of executed steps: written by the process that holds the run, read by anyone."""

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from loralab.errors import UserError
from loralab.store.run_lock import LostRunError
from loralab.store.strict_json import parse

__all__ = ["MetricsFile", "StepCounter", "last_logged", "parsed", "unreadable"]

# Bytes at the end of metrics.jsonl that are looked at first: some ten lines.
TAIL = 2048


class MetricsFile:
    """metrics.jsonl of a run's directory: appended line by line; on resume truncated to its size at the checkpoint."""

    FILE = "metrics.jsonl"

    def __init__(self, directory: Path, *, size: int) -> None:
        self.path = directory / self.FILE
        self.size = size
        if self.path.exists() and not self.path.is_file():  # opening a FIFO would wait for a reader
            raise UserError(f"{self.path} is not a file; remove {directory} to train the run from the start")
        self.stream = self.path.open("ab")
        there = os.fstat(self.stream.fileno()).st_size
        if there < size:  # truncate would pad it with NUL bytes
            self.stream.close()
            raise UserError(
                f"{self.path} holds {there:,} bytes, but its checkpoint was written at {size:,}; remove "
                f"{directory} to train the run from the start"
            )
        self.stream.truncate(size)

    def append(self, line: dict[str, Any]) -> None:
        """Appends one object; raises ValueError for NaN and infinities, which callers replace by None."""
        text = json.dumps(line, allow_nan=False).encode() + b"\n"
        self.check()
        self.stream.write(text)
        self.stream.flush()
        self.size += len(text)

    def lines(self) -> Iterator[dict[str, Any]]:
        """What it held when it was opened; raises UserError for a damaged line."""
        with self.path.open("rb") as stream:
            for number, text in enumerate(stream.read(self.size).splitlines(), 1):
                yield parsed(text, f"{self.path}, line {number}", self.path.parent)

    def check(self) -> None:
        """Raises LostRunError unless the file at its path is the one that was opened, with what was written to it."""
        ours = os.fstat(self.stream.fileno())
        try:
            same = os.path.samestat(ours, self.path.stat())
        except OSError:
            same = False
        if not same or ours.st_size != self.size:
            raise LostRunError(
                f"{self.path} was removed or changed while its run trained, so the run has ended; remove "
                f"{self.path.parent} to train the run from the start"
            )

    def sync(self) -> int:
        """Flushes every line to disk and returns the file's size, for the checkpoint."""
        self.check()
        os.fsync(self.stream.fileno())
        return self.size

    def close(self) -> None:
        os.fsync(self.stream.fileno())
        self.stream.close()


class StepCounter:
    """Number of executed steps, over all processes of the run; written at each step, so a kill loses none."""

    FILE = "executed"

    def __init__(self, directory: Path) -> None:
        path = directory / self.FILE
        self.handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o644)
        try:
            self.count = int(os.pread(self.handle, 20, 0).strip(b"\0") or b"0")
        except (ValueError, OSError) as error:
            os.close(self.handle)
            raise UserError(f"{path} is damaged: it counts the run's steps; remove it to count from 0") from error

    def add(self) -> None:
        """Counts one step; takes 1 us, without fsync, since the page cache survives a killed process."""
        self.count += 1
        os.pwrite(self.handle, f"{self.count:020d}".encode(), 0)

    def close(self) -> None:
        os.close(self.handle)


def parsed(text: bytes, where: str, directory: Path) -> dict[str, Any]:
    """A whole line of metrics.jsonl; raises UserError, which names `where` it is, for anything else."""
    try:
        line = parse(text)
        if not isinstance(line, dict) or not isinstance(line.get("values"), dict):
            raise ValueError("it is not a line of metrics")
        numbers = [line.get("seconds"), *line["values"].values()]
        if type(line.get("step")) is not int or not isinstance(line.get("split"), str):
            raise ValueError("it has no step or no split")
        if not all(number is None or type(number) in (int, float) for number in numbers):
            raise ValueError("its values are not numbers")
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{where} is damaged ({error}); remove {directory}, and the same command trains the run again"
        ) from error
    return line


def last_logged(directory: Path, split: str | None = None) -> dict[str, Any] | None:
    """The last whole line of metrics.jsonl, or of one split; None without one. Raises UserError for a damaged file.

    The end of the file is read first, and all of it only if the line is not there.
    """
    path = directory / MetricsFile.FILE
    try:
        if not path.is_file():
            if path.exists():
                raise OSError(errno.EINVAL, "it is not a regular file")
            return None
        with path.open("rb") as stream:
            return _last(stream, path, split)
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> UserError:
    """The line for a metrics.jsonl that is not a file, or not this user's."""
    fix = "allow yourself to read it" if isinstance(error, PermissionError) else f"remove {path.parent}"
    return UserError(f"{path} cannot be read ({error.strerror}); {fix}")


def _last(stream: BinaryIO, path: Path, split: str | None) -> dict[str, Any] | None:
    size = stream.seek(0, os.SEEK_END)
    for start in sorted({max(0, size - TAIL), 0}, reverse=True):
        stream.seek(start)
        lines = stream.read().split(b"\n")[1 if start else 0 : -1]  # the first may be cut, the last has no end yet
        for text in reversed(lines):
            line = parsed(text, f"{path}, near its end,", path.parent)
            if split is None or line["split"] == split:
                return line
    return None
