"""Tests of the journal: a transaction is written whole or not at all, and damage has one line."""

import errno
import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import optuna
import pytest
from optuna.exceptions import ExperimentalWarning
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from loralab.errors import UserError
from loralab.tuning.optuna_draw import new_trial
from loralab.tuning.optuna_journal import Searcher, Transaction, quiet
from loralab.tuning.space import read_space

SPACE = read_space(["optim.lr=log(1e-4,1e-2)"])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "optuna.journal"


def add(path: Path, rate: float = 1e-3) -> bool:
    """Adds a trial with a report in one transaction."""
    with quiet():
        journal = Transaction(path)
        study = journal.study("name")
        study.add_trial(new_trial(SPACE, {"optim.lr": rate}))
        journal.report(study, len(study.trials) - 1, 20, 0.5)
        journal.annotate(study, len(study.trials) - 1, "diverged", True)
    return journal.commit()


def rates(path: Path) -> list[float]:
    """As Optuna itself reads them, with its own backend."""
    with quiet():
        study = optuna.load_study(study_name="name", storage=JournalStorage(JournalFileBackend(str(path))))
    assert all(trial.intermediate_values == {20: 0.5} and trial.user_attrs for trial in study.trials)
    return [trial.params["optim.lr"] for trial in study.trials]


def test_nothing_is_written_before_commit(path: Path) -> None:
    journal = Transaction(path)
    journal.study("name").add_trial(new_trial(SPACE, {"optim.lr": 1e-3}))
    assert not path.exists()
    assert journal.commit() and path.stat().st_size > 0


def test_optuna_reads_what_was_committed(path: Path) -> None:
    assert add(path, 1e-3) and add(path, 2e-3)
    assert rates(path) == [1e-3, 2e-3]


def test_reading_alone_writes_nothing(path: Path) -> None:
    add(path)
    before = path.read_bytes()
    journal = Transaction(path)
    assert len(journal.study("name").trials) == 1 and journal.commit()
    assert path.read_bytes() == before


def test_a_transaction_that_another_writer_overtook_writes_nothing(path: Path) -> None:
    add(path)
    journal = Transaction(path)
    journal.study("name").set_user_attr("mine", 1)
    add(path, 2e-3)
    before = path.read_bytes()
    assert not journal.commit() and path.read_bytes() == before


def test_a_cut_last_line_is_removed(path: Path) -> None:
    add(path)
    with path.open("ab") as stream:
        stream.write(b'{"op_code":4,"worker_id":"x","study_id":0,"dat')
    assert add(path, 2e-3) and rates(path) == [1e-3, 2e-3]


def test_a_full_disk_leaves_nothing_of_a_transaction(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(path)
    before = path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            add(path, 2e-3)
    assert path.read_bytes() == before and add(path, 2e-3)


@pytest.mark.parametrize(
    "junk",
    [b"junk\n", b"\x00\xff\n", b"[]\n", b"{}\n", b'{"op_code":"4"}\n', b'{"op_code":4}\n', b'{"op_code":99}\n', b"\n"],
)
@pytest.mark.parametrize("last", [True, False])
def test_damage_has_one_line(path: Path, junk: bytes, last: bool) -> None:
    add(path)
    content = path.read_bytes()
    path.write_bytes(content + junk if last else junk + content)
    with pytest.raises(UserError) as caught, quiet():
        Transaction(path).study("name")
    line = str(caught.value)
    assert line.startswith(f"{path}: ") and "move the file away" in line and "\n" not in line


def test_the_journal_of_another_study_has_one_line(path: Path) -> None:
    add(path)
    with pytest.raises(UserError, match="it is the journal of another search"):
        Transaction(path).study("other")


def test_searchers_have_numbers_of_their_own_and_inherit_those_of_the_dead(path: Path) -> None:
    first, second = Searcher(path), Searcher(path)
    assert (first.number, second.number) == (0, 1)
    assert first.is_alive(0) and first.is_alive(1) and not first.is_alive(2)
    del first
    assert not second.is_alive(0) and Searcher(path).number == 0


def test_a_killed_searcher_is_dead(path: Path) -> None:
    code = (
        "import pathlib, sys, time; from loralab.tuning.optuna_journal import Searcher; "
        "some = Searcher(pathlib.Path(sys.argv[1])); print(some.number, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "0\n"
        own = Searcher(path)
        assert own.number == 1 and own.is_alive(0)
        process.kill()
    assert not own.is_alive(0)


def test_quiet_silences_experimental_parts_and_nothing_else() -> None:
    was = optuna.logging.get_verbosity()
    with quiet():
        warnings.warn("not heard", ExperimentalWarning, stacklevel=1)
        with pytest.raises(UserWarning, match="heard"):  # as everywhere in the tests
            warnings.warn("heard", UserWarning, stacklevel=1)
        assert optuna.logging.get_verbosity() == logging.WARNING
    assert optuna.logging.get_verbosity() == was
