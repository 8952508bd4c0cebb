"""Laws of the entry: what it gives back, its exit statuses, and how a multirun is shown."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import hydra
import pytest

from loralab.entry import launch, train
from loralab.training.interrupt import Interrupted
from tests.runs import CONF, SMALL


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # `launch` sets it; put back afterwards


def run_line(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> list[Any]:
    """train.py with these arguments, in this process; what each job gave."""
    given: list[Any] = []

    def job(composed: Any) -> None:
        given.append(train(composed))

    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    launch(hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job))
    return given


def test_a_run_gives_its_best_validation_score_and_leaves_nothing_where_it_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (best,) = run_line(monkeypatch, *SMALL, f"store={tmp_path / 'store'}")
    assert f"{best:.4f}" in capsys.readouterr().out
    assert list((tmp_path / "here").iterdir()) == []


def test_settings_may_stand_on_both_sides_of_a_flag_and_a_later_one_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = run_line(monkeypatch, *SMALL, "train.steps=2", "-m", f"store={tmp_path}", "train.steps=1", "seed=0,1")
    assert len(scores) == 2
    out, err = capsys.readouterr()
    assert [line for line in err.splitlines() if line.startswith("#")] == ["#0  seed=0", "#1  seed=1"]
    assert len(out.splitlines()) == 2
    assert "    1 step  lr: " in err
    assert {path.name for path in tmp_path.iterdir()} >= {"runs", "cache"}


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt(), 130), (Interrupted(15), 143), (Interrupted(2), 130)]
)
def test_an_interrupt_has_the_status_that_shells_know(
    error: BaseException, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def command() -> None:
        raise error

    monkeypatch.setattr(sys, "argv", ["train.py"])
    with pytest.raises(SystemExit) as caught:
        launch(command)
    assert caught.value.code == status


def test_a_bug_is_raised_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def command() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(sys, "argv", ["train.py"])
    with pytest.raises(ZeroDivisionError):
        launch(command)


def test_help_whose_reader_stops_reading_ends_quietly() -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        command = [sys.executable, str(CONF.parent / "train.py"), "--help"]
        done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")
