"""An Optuna study in a file, changed by whole transactions, and the searchers that share it.

Optuna's journal has one JSON line for each change of a study (a trial, a parameter, a report, a result), appended under
a lock file (a symbolic link, which also works on NFS) and flushed to the disk. Optuna reads the whole file again to
learn what others did. A line that was cut, as by a full disk, is ignored while it is the last one, and makes the file
unreadable as soon as another follows. A process killed between two lines leaves a trial without parameters, or a
reported value without its decision.

Here all lines of one `ask` are written at once, or none. A cut last line is removed first; lines that another program,
such as optuna-dashboard, wrote in the meantime make the transaction start again. What remains: a crash of the machine
may keep the first lines of a transaction alone; and a process killed within the write, which takes milliseconds, leaves
Optuna's lock file, which the next process waits 30 seconds for.
"""

import contextlib
import errno
import itertools
import json
import os
import warnings
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileSymlinkLock

from loralab.errors import UserError
from loralab.files import locked

__all__ = ["Searcher", "Transaction", "quiet"]

_MOVE = "move the file away, and run the command again: a new one is made, with the finished runs of the store"
_CREATE_STUDY = 0  # op_code of the line that names a study


class Transaction(BaseJournalBackend):
    """The lines of a journal, and those that are added by its study until `commit`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        content = path.read_bytes() if path.exists() else b""
        self._read = len(content)
        self._whole = content.rfind(b"\n") + 1  # without a cut last line
        self._lines = [self._line(text, at) for at, text in enumerate(content[: self._whole].splitlines(), 1)]
        self._stored = len(self._lines)

    def study(self, name: str) -> optuna.Study:
        """The study of that name, made if the file is new. Raises UserError where the file is another study's."""
        names = {line.get("study_name") for line in self._lines if line["op_code"] == _CREATE_STUDY}
        if names - {name}:
            raise UserError(
                f"{self.path}: it is the journal of another search (of other keys, settings or options); {_MOVE}"
            )
        sampler = optuna.samplers.RandomSampler(seed=0)  # never draws: see OptunaSearch
        opened = optuna.load_study if names else optuna.create_study
        try:
            self._storage = JournalStorage(self)
            return opened(study_name=name, storage=self._storage, sampler=sampler)
        except (AssertionError, LookupError, TypeError, ValueError) as error:  # what replaying odd lines raises
            raise UserError(f"{self.path}: Optuna cannot read this journal ({error!r}); {_MOVE}") from error

    def report(self, study: optuna.Study, number: int, step: int, loss: float) -> None:
        """Reports the loss of a trial at a step."""
        self._storage.set_trial_intermediate_value(self._trial_id(study, number), step, loss)

    def annotate(self, study: optuna.Study, number: int, name: str, value: bool) -> None:
        """Sets a user attribute of a trial."""
        self._storage.set_trial_user_attr(self._trial_id(study, number), name, value)

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        return self._lines[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self._lines += [json.loads(json.dumps(log)) for log in logs]

    def commit(self) -> bool:
        """Writes the new lines; False, and nothing is written, where the file has changed since it was read."""
        new = self._lines[self._stored :]
        if not new:
            return True
        text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in new).encode()
        with _held(JournalFileSymlinkLock(str(self.path))), self.path.open("ab", buffering=0) as stream:
            if os.fstat(stream.fileno()).st_size != self._read:
                return False
            os.ftruncate(stream.fileno(), self._whole)
            try:
                if stream.write(text) < len(text):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
                os.fsync(stream.fileno())
            except OSError:  # nothing of it may stay
                os.ftruncate(stream.fileno(), self._whole)
                raise
        return True

    def _trial_id(self, study: optuna.Study, number: int) -> int:
        """The identity of a trial within the file."""
        own = self._storage.get_study_id_from_name(study.study_name)
        return self._storage.get_trial_id_from_study_id_trial_number(own, number)

    def _line(self, text: bytes, at: int) -> dict[str, Any]:
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        if not isinstance(line, dict) or not isinstance(line.get("op_code"), int):
            raise UserError(f"{self.path}: line {at} is damaged, or the file is no journal of Optuna; {_MOVE}")
        return line


class Searcher:
    """The number of one of the processes that share a journal: the smallest that no live process has.

    A process that takes the place of a killed one gets its number, and so what it had asked for.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        for number in itertools.count():
            handle = _locked(self._file(number))
            if handle is not None:
                self.number = number
                weakref.finalize(self, os.close, handle)  # the lock ends with the object, or its process
                return

    def is_alive(self, number: int) -> bool:
        """Whether a process has this number, this one included."""
        if number == self.number:
            return True
        handle = _locked(self._file(number))
        if handle is not None:
            os.close(handle)
        return handle is None

    def _file(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.searcher{number}")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Inside, Optuna logs warnings alone, and says nothing of parts that are experimental in Optuna 4 (TPE's, GP)."""
    was = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(was)


@contextlib.contextmanager
def _held(lock: JournalFileSymlinkLock) -> Iterator[None]:
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _locked(file: Path) -> int | None:
    """A descriptor of the file, locked; None where another has the lock."""
    return locked(os.open(file, os.O_RDWR | os.O_CREAT, 0o644))
