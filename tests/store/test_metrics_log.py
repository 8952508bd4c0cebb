"""Tests of the journal: lines reach file and tracker, an exception closes both, the base class writes nothing."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from loralab.store.metrics_log import Journal, open_journal
from loralab.store.run_directory import RunDirectory
from loralab.store.run_lock import LostRunError
from loralab.store.trackers import NoTracker

FIRST = {"step": 1, "split": "train", "values": {"loss": 0.5}}


class Noted(NoTracker):
    """A tracker that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.there: list[dict[str, Any]] = []
        self.finished = False

    def log(self, line: dict[str, Any]) -> None:
        self.told.append(line)

    def begin(self, lines: Iterable[dict[str, Any]]) -> None:
        self.there = list(lines)

    def summarise(self, status: str, metrics: dict[str, Any]) -> None:
        self.told.append({"status": status, **metrics})

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.finished = True


def directory(path: Path) -> RunDirectory:
    run = RunDirectory(path / "runs" / "tiny-0123456789")
    run.path.mkdir(parents=True, exist_ok=True)
    return run


def test_lines_reach_the_file_and_the_tracker_and_a_resumed_journal_forgets_what_came_after(tmp_path: Path) -> None:
    run, tracker = directory(tmp_path), Noted()
    with open_journal(run, tracker, size=0) as journal:
        journal.step()
        journal.line(FIRST)
        seen = journal.sync()
        journal.step()
        journal.line({"step": 2})
    assert tracker.told == [FIRST, {"step": 2}] and tracker.there == []
    with open_journal(run, tracker, size=seen) as journal:
        assert tracker.there == [FIRST]
        journal.step()
        journal.line({"step": 2, "again": True})
        journal.summarise("success", {"accuracy": 1.0})
        assert journal.executed == 3
    assert (run.path / "metrics.jsonl").read_text() == f'{json.dumps(FIRST)}\n{{"step": 2, "again": true}}\n'
    assert tracker.told[-1] == {"status": "success", "accuracy": 1.0}


def test_lines_that_were_removed_after_the_last_one_end_the_run(tmp_path: Path) -> None:
    run, tracker = directory(tmp_path), Noted()
    with (
        pytest.raises(LostRunError, match=r"metrics\.jsonl was removed"),
        open_journal(run, tracker, size=0) as journal,
    ):
        journal.line({"step": 1})
        (run.path / "metrics.jsonl").unlink()
    assert tracker.finished


def test_the_tracker_is_finished_and_the_file_closed_also_after_an_exception(tmp_path: Path) -> None:
    tracker = Noted()
    with pytest.raises(KeyboardInterrupt), open_journal(directory(tmp_path), tracker, size=0) as journal:
        raise KeyboardInterrupt
    assert tracker.finished
    with pytest.raises(ValueError, match="closed file"):
        journal.line({"step": 1})


def test_nobodys_journal_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    journal = Journal()
    journal.step()
    journal.line({"step": 1})
    journal.summarise("success", {})
    assert (journal.sync(), journal.executed, journal.mirrored) == (0, 0, None)
    assert not list(tmp_path.iterdir())
