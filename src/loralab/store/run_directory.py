"""Run directories, named by the hash of the settings that determine their content; one process at a time holds a run.

<store>/runs/<slug>-<hash>/
    config.yaml  metrics.jsonl  predictions.parquet  adapter/ or model/  checkpoint/ (while it runs)
    answers.json (of a task that is answered in text)
    labels.json (where the run has a name or tags)
    record.json (last)
"""

import contextlib
import difflib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeGuard

from loralab.errors import UserError
from loralab.files import remove_temporaries, write_json, write_text
from loralab.store import labels
from loralab.store.metrics_file import StepCounter, last_logged
from loralab.store.record import FailedRecord, PausedRecord, Record
from loralab.store.record_file import read_record
from loralab.store.run_lock import Hold, is_held

__all__ = [
    "FINAL",
    "RunDirectory",
    "Standing",
    "directory_of",
    "final_status",
    "find",
    "in_words",
    "is_final",
    "last_step",
    "record_of",
    "refuse_missing",
    "refuse_paused",
    "run_hash",
    "standing",
    "status",
]

# Checking whether a run is held takes its lock for less than this; a lock held for longer belongs to a run.
PROBE_SECONDS = 0.2
_LISTED = 3  # runs in an error's line
WAIT_SECONDS = 0.5  # between two checks of a caller that waits for the run
FINAL = ("success", "diverged")
"""The statuses of runs that are never trained again."""


def final_status(*, diverged: bool) -> Literal["success", "diverged"]:
    """The status of a training that ended without an exception."""
    return "diverged" if diverged else "success"


def is_final(record: Record | PausedRecord | FailedRecord | None) -> TypeGuard[Record]:
    """Whether the record's status is final, so that the run is never trained again."""
    return record is not None and record["status"] in FINAL


def run_hash(identity: dict[str, Any]) -> str:
    """The first 10 hex digits of SHA-256 over the identity as canonical JSON."""
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:10]


@dataclass
class _Holding:
    hold: Hold | None = None
    config: str | None = None


@dataclass(frozen=True)
class RunDirectory:
    """One run's files."""

    path: Path
    _holding: _Holding = field(default_factory=_Holding, init=False, repr=False, compare=False)  # of this process

    def __reduce__(self) -> tuple[Any, ...]:  # another process does not hold it
        return RunDirectory, (self.path,)

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

    @property
    def answers(self) -> Path:
        """A few test questions, answered before and after training, of a task that is answered in text."""
        return self.path / "answers.json"

    def record(self) -> Record | PausedRecord | FailedRecord | None:
        """The record, or None for a run that has not ended; raises UserError for a damaged one."""
        return read_record(self.path / "record.json")

    def finished(self) -> Record | None:
        """The record if its status is final, else None."""
        record = self.record()
        return record if is_final(record) else None

    @contextlib.contextmanager
    def hold(self, *, wait: bool, check: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Holds the run for this process, by an OS file lock that dies with the process.

        If another process holds it: with `wait`, waits and calls `check`, which may raise, every half second; else
        raises UserError at once. Until `begin` creates the run's directory, the lock file alone holds the run.
        """
        hold = Hold(self._lock, self.path)
        while not hold.take(WAIT_SECONDS if wait else PROBE_SECONDS):
            if not wait:
                raise UserError(
                    f"run {self.path.name} is being trained by another process; wait for it, or change a setting to "
                    "get another run"
                )
            check()
        self._holding.hold, self._holding.config = hold, None
        try:
            yield
        finally:
            self._holding.hold = None
            hold.release()

    @property
    def _lock(self) -> Path:
        return self.path.parent.parent / "locks" / f"{self.hash}.lock"

    def held(self) -> bool:
        """Whether a live process holds the run."""
        return is_held(self._lock, self.path)

    def check(self) -> None:
        """Before each write that counts: raises LostRunError if the directory was removed since `begin`.

        Nothing in a process that does not hold the run.
        """
        if self._holding.hold is not None:
            self._holding.hold.check()

    def finish(self, record: Mapping[str, Any]) -> None:
        """Writes the record; if its status is final, removes the checkpoint and the step counter.

        Writes config.yaml again if it was removed meanwhile.
        """
        self.check()
        config = self.path / "config.yaml"
        if self._holding.config is not None and not config.exists():
            write_text(config, self._holding.config)
        write_json(self.path / "record.json", record, check=self.check)
        if record["status"] in FINAL:
            self._remove_progress()

    def tidy(self) -> None:
        """Removes what a process left that died right after it wrote a final record; nothing while the run is held."""
        there = (self.checkpoint, self.path / StepCounter.FILE)
        with contextlib.suppress(OSError, UserError):  # a read-only store, or another process is at it
            if any(path.exists() for path in there) and self.finished() is not None:  # a paused run keeps them
                with self.hold(wait=False):
                    if self.finished() is not None:
                        self._remove_progress()
                        remove_temporaries(self.path)

    def _remove_progress(self) -> None:
        shutil.rmtree(self.checkpoint, ignore_errors=True)
        (self.path / StepCounter.FILE).unlink(missing_ok=True)

    def remove_ended(self) -> None:
        """Removes all but the labels of a run that has ended, or whose record is damaged; for the holder of the run."""
        with contextlib.suppress(UserError):
            if self.finished() is None:
                return
        self._empty(keep=(labels.FILE,))

    def check_removable(self) -> None:
        """Raises UserError for a link to a run elsewhere, and while a process trains the run."""
        if self.path.is_symlink():
            raise UserError(f"{self.path} is a link to a run elsewhere; remove the link, or the run there")
        if self.held():
            raise UserError(f"{self.path.name} is in progress ({status(self)}); stop it first; nothing was removed")

    def remove(self) -> None:
        """Removes the run; raises UserError where `check_removable` does."""
        self.check_removable()
        with self.hold(wait=False):
            self._empty()
            self.path.rmdir()

    def _empty(self, keep: Sequence[str] = ()) -> None:
        """Removes the files in the directory, the record first: what is left by a kill is no finished run."""
        files = [path for path in self.path.glob("*") if path.name not in keep] if self.path.is_dir() else []
        for path in sorted(files, key=lambda path: path.name != "record.json"):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def begin(self, config: str) -> None:
        """Creates the directory with config.yaml, and removes temporary files; for the process that holds the run."""
        if self._holding.hold is not None:
            self._holding.hold.make_directory()
            self._holding.config = config
        remove_temporaries(self.path)
        write_text(self.path / "config.yaml", config)


def directory_of(store: Path, slug: str, digest: str) -> RunDirectory:
    """The directory of the run with this hash: an existing one with any slug, else <slug>-<digest>."""
    there = sorted((store / "runs").glob(f"*-{digest}"))
    return RunDirectory(there[0] if there else store / "runs" / f"{slug}-{digest}")


def find(store: Path, wanted: str) -> RunDirectory:
    """The run with this directory, or with this name or hash, a prefix of these, or the name that people gave it.

    Raises UserError unless exactly one matches.
    """
    as_path = Path(wanted)
    with contextlib.suppress(OSError):  # it is no path, such as one that is too long
        if (as_path / "config.yaml").is_file():
            return RunDirectory(as_path.absolute())
    every = sorted(path for path in (store / "runs").glob("*") if path.is_dir())
    hits = [p for p in every if wanted in (p.name, p.name.rsplit("-", 1)[-1])] or [
        p for p in every if p.name.startswith(wanted) or p.name.rsplit("-", 1)[-1].startswith(wanted)
    ]
    if not hits:
        refuse_missing(store)
    hits = hits or [p for p in every if labels.labels_of(p).name == wanted]
    if len(hits) != 1:
        what = f"{len(hits)} runs" if hits else "no run"
        raise UserError(f"{wanted!r} names {what} in {store / 'runs'}; {_hint(hits, wanted, every)}")
    return RunDirectory(hits[0])


def _hint(hits: Sequence[Path], wanted: str, every: Sequence[Path]) -> str:
    """How to name one run, where several have a name or none has."""
    if hits:
        latest = sorted(hits, key=lambda path: path.stat().st_mtime, reverse=True)
        more = f" and {len(hits) - _LISTED} more" if len(hits) > _LISTED else ""
        names = ", ".join(path.name for path in latest[:_LISTED])
        return f"name one, as the latest: {names}{more}; `loralab runs` tells them apart"
    near = difflib.get_close_matches(wanted, [path.name for path in every], n=1)
    return f"{f'did you mean {near[0]}? ' if near else ''}`loralab runs` lists them"


def refuse_missing(store: Path) -> None:
    """Raises UserError unless the store is there."""
    there = False
    with contextlib.suppress(OSError):  # a name that is too long
        there = store.is_dir()
    if not there:
        raise UserError(f"--store: there is no folder {store}; name the one with runs/, or train a run, which makes it")


@dataclass(frozen=True)
class Standing:
    """A run's status, with the record that it is read from, or the error of a damaged record.

    status: success, diverged, paused, failed, running, cut off, missing or damaged; step: how far one came that has no
    final record.
    """

    status: str
    record: Record | PausedRecord | FailedRecord | None = None
    error: str | None = None
    step: int = 0


def standing(run: RunDirectory) -> Standing:
    """The run's current status."""
    try:
        record = run.record()
        if is_final(record):
            return Standing(record["status"], record)
        if run.held():
            return Standing("running", step=last_step(run))
        record = run.record()  # it may have ended between the two checks
        if record is not None:
            step = last_step(run) if record["status"] == "failed" else record["steps"]
            return Standing(record["status"], record, step=step)
        there = run.path.is_dir()
        return Standing("cut off", step=last_step(run)) if there else Standing("missing")
    except UserError as error:
        return Standing("damaged", error=str(error))
    except OSError as error:
        return Standing("damaged", error=f"{run.path} cannot be read ({error.strerror})")


def status(run: RunDirectory) -> str:
    """The status in words, with the current step of a run that has not ended."""
    return in_words(standing(run))


def in_words(now: Standing) -> str:
    """`success`, or `cut off at step 7`."""
    if now.status == "running":
        return f"running, step {now.step}"
    if now.record is not None and now.record["status"] == "paused":
        return f"paused at step {now.step} of {now.record['total_steps']}"
    return f"cut off at step {now.step}" if now.status == "cut off" else now.status


def refuse_paused(run: RunDirectory) -> None:
    """Raises UserError for a paused run, which has no trained weights yet."""
    if standing(run).status == "paused":
        raise UserError(f"{run.path.name}: {status(run)}; run its command without train.pause_at to finish it")


def last_step(run: RunDirectory) -> int:
    """The step of the last complete line of metrics.jsonl; 0 without one. Raises UserError for a damaged file."""
    line = last_logged(run.path)
    return 0 if line is None else int(line["step"])


def record_of(run: RunDirectory) -> Record | PausedRecord | FailedRecord:
    """The record, or UserError where there is none yet."""
    record = run.record()
    if record is None:
        raise UserError(f"{run.path.name}: has no record yet ({status(run)}); run its command again to finish it")
    return record
