"""Run directories, named by the hash of the settings that determine their content; one process at a time holds a run.

<store>/runs/<slug>-<hash>/
    config.yaml  metrics.jsonl  predictions.parquet  adapter/ or model/  checkpoint/ (while it runs)
    record.json (last)
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeGuard

from filelock import FileLock, Timeout

from loralab.errors import UserError
from loralab.files import remove_temporaries, write_json, write_text
from loralab.store.record import FailedRecord, Record

__all__ = [
    "FINAL",
    "MetricsFile",
    "RunDirectory",
    "Standing",
    "StepCounter",
    "directory_of",
    "final_status",
    "find",
    "is_final",
    "last_step",
    "record_of",
    "run_hash",
    "standing",
    "status",
]

# Checking whether a run is held takes its lock for less than this; a lock held for longer belongs to a run.
PROBE_SECONDS = 0.2
FINAL = ("success", "diverged")
"""The statuses of runs that are never trained again."""


def final_status(*, diverged: bool) -> Literal["success", "diverged"]:
    """The status of a training that ended without an exception."""
    return "diverged" if diverged else "success"


def is_final(record: Record | FailedRecord | None) -> TypeGuard[Record]:
    """Whether the record's status is final, so that the run is never trained again."""
    return record is not None and record["status"] in FINAL


def run_hash(identity: dict[str, Any]) -> str:
    """The first 10 hex digits of SHA-256 over the identity as canonical JSON."""
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:10]


@dataclass(frozen=True)
class RunDirectory:
    """One run's files."""

    path: Path

    @property
    def hash(self) -> str:
        return self.path.name.rsplit("-", 1)[-1]

    @property
    def adapter(self) -> Path:
        return self.path / "adapter"

    @property
    def model(self) -> Path:
        """The whole model, a transformers checkpoint without tokenizer, if every weight was trained."""
        return self.path / "model"

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions.parquet"

    def record(self) -> Record | FailedRecord | None:
        """The record, or None for a run that has not ended; raises UserError for a damaged one."""
        try:
            record: Record | FailedRecord = json.loads((self.path / "record.json").read_text())
            if not {"status", "metrics", "started", "ended"} <= record.keys():
                raise ValueError("it is not a run's record")
        except FileNotFoundError:
            return None
        except (ValueError, AttributeError) as error:
            raise UserError(
                f"{self.path / 'record.json'} is damaged ({error}); remove it, and the same command trains the run "
                "again"
            ) from error
        return record

    def finished(self) -> Record | None:
        """The record if its status is final, else None."""
        record = self.record()
        return record if is_final(record) else None

    @contextlib.contextmanager
    def hold(self, *, wait: bool, check: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Holds the run for this process, by an OS file lock that dies with the process.

        If another process holds it: with `wait`, waits and calls `check`, which may raise, every half second; else
        raises UserError at once. The lock file is kept: after a removal two processes could lock different files of one
        name.
        """
        lock = self._lock()
        try:
            while True:
                with contextlib.suppress(Timeout) if wait else contextlib.nullcontext():
                    lock.acquire(timeout=0.5 if wait else PROBE_SECONDS, poll_interval=0.02)
                    break
                check()
        except Timeout:
            raise UserError(
                f"run {self.path.name} is being trained by another process; wait for it, or change a setting to get "
                "another run"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def _lock(self) -> FileLock:
        locks = self.path.parent.parent / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        return FileLock(locks / f"{self.hash}.lock")

    def held(self) -> bool:
        """Whether a live process holds the run."""
        try:
            lock = self._lock()
            lock.acquire(timeout=0)
        except Timeout:
            return True
        except PermissionError:  # a read-only store: no process here can train in it
            return False
        lock.release()
        return False

    def finish(self, record: Mapping[str, Any]) -> None:
        """Writes the record; if its status is final, removes the checkpoint and the step counter."""
        write_json(self.path / "record.json", record)
        if record["status"] in FINAL:
            shutil.rmtree(self.checkpoint, ignore_errors=True)
            (self.path / StepCounter.FILE).unlink(missing_ok=True)

    def begin(self, config: str) -> None:
        """Creates the directory with config.yaml, and removes temporary files; for the process that holds the run."""
        remove_temporaries(self.path)
        write_text(self.path / "config.yaml", config)


class MetricsFile:
    """metrics.jsonl: appended line by line; on resume truncated to its size at the checkpoint."""

    def __init__(self, directory: RunDirectory, *, size: int) -> None:
        self.path = directory.path / "metrics.jsonl"
        self.stream = self.path.open("ab")
        there = os.fstat(self.stream.fileno()).st_size
        if there < size:  # truncate would pad it with NUL bytes
            self.stream.close()
            raise UserError(
                f"{self.path} holds {there:,} bytes, but its checkpoint was written at {size:,}; remove "
                f"{directory.path} to train the run from the start"
            )
        self.stream.truncate(size)

    def append(self, line: dict[str, Any]) -> None:
        """Appends one object; raises ValueError for NaN and infinities, which callers replace by None."""
        self.stream.write(json.dumps(line, allow_nan=False).encode() + b"\n")
        self.stream.flush()

    def sync(self) -> int:
        """Flushes every line to disk and returns the file's size, for the checkpoint."""
        os.fsync(self.stream.fileno())
        return os.fstat(self.stream.fileno()).st_size

    def close(self) -> None:
        self.sync()
        self.stream.close()


class StepCounter:
    """Number of executed steps, over all processes of the run; written at each step, so a kill loses none."""

    FILE = "executed"

    def __init__(self, directory: RunDirectory) -> None:
        self.handle = os.open(directory.path / self.FILE, os.O_RDWR | os.O_CREAT, 0o644)
        self.count = int(os.pread(self.handle, 20, 0).strip(b"\0") or b"0")

    def add(self) -> None:
        """Counts one step; takes 1 us, without fsync, since the page cache survives a killed process."""
        self.count += 1
        os.pwrite(self.handle, f"{self.count:020d}".encode(), 0)

    def close(self) -> None:
        os.close(self.handle)


def directory_of(store: Path, slug: str, digest: str) -> RunDirectory:
    """The directory of the run with this hash: an existing one with any slug, else <slug>-<digest>."""
    there = sorted((store / "runs").glob(f"*-{digest}"))
    return RunDirectory(there[0] if there else store / "runs" / f"{slug}-{digest}")


def find(store: Path, wanted: str) -> RunDirectory:
    """The run with this directory, name or hash, or a prefix of these; raises UserError unless exactly one matches."""
    as_path = Path(wanted)
    if (as_path / "config.yaml").is_file():
        return RunDirectory(as_path.absolute())
    every = sorted(path for path in (store / "runs").glob("*") if path.is_dir())
    hits = [p for p in every if wanted in (p.name, p.name.rsplit("-", 1)[-1])] or [
        p for p in every if p.name.startswith(wanted) or p.name.rsplit("-", 1)[-1].startswith(wanted)
    ]
    if len(hits) != 1:
        what = "no run" if not hits else f"{len(hits)} runs"
        raise UserError(f"{wanted!r} names {what} in {store / 'runs'}; `loralab runs` lists them")
    return RunDirectory(hits[0])


@dataclass(frozen=True)
class Standing:
    """A run's status, with the record that it is read from, or the error of a damaged record.

    status: success, diverged, failed, running, cut off, missing or damaged.
    """

    status: str
    record: Record | FailedRecord | None = None
    error: str | None = None


def standing(run: RunDirectory, *, probe: bool = True) -> Standing:
    """The run's current status; probe: also check its lock, to find a running one."""
    try:
        record = run.record()
        if probe and not is_final(record):
            if run.held():
                return Standing("running")
            record = run.record()  # it may have ended between the two checks
    except UserError as error:
        return Standing("damaged", error=str(error))
    if record is None:
        return Standing("cut off" if run.path.is_dir() else "missing")
    return Standing(record["status"], record)


def status(run: RunDirectory) -> str:
    """The status in words, with the current step of a run that has not ended."""
    word = standing(run).status
    if word == "running":
        return f"running, step {last_step(run)}"
    return f"cut off at step {last_step(run)}" if word == "cut off" else word


def last_step(run: RunDirectory) -> int:
    """The step of the last complete line of metrics.jsonl; 0 without one."""
    try:
        lines = (run.path / "metrics.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return 0
    for line in reversed(lines):
        try:
            return int(json.loads(line)["step"])
        except json.JSONDecodeError:  # an incomplete line, being written or cut by a kill
            continue
    return 0


def record_of(run: RunDirectory) -> Record | FailedRecord:
    """The record, or UserError where there is none yet."""
    record = run.record()
    if record is None:
        raise UserError(f"{run.path.name}: has no record yet ({status(run)}); run its command again to finish it")
    return record
