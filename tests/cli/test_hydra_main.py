"""The entry point: return values, exit statuses, and the display of a multirun."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import hydra
import pytest

from loralab.cli.hydra_main import launch, train
from loralab.errors import RunsFailed
from loralab.training.signals import Interrupted
from tests.small_runs import CONF, SMALL


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # `launch` sets it; restored afterwards


def run_line(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> list[Any]:
    """Runs train.py with these arguments in this process and returns each job's result."""
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


@pytest.mark.parametrize(("at", "scored"), [(2, False), (7, True)])
def test_a_run_that_pauses_gives_its_best_score_so_far(
    at: int, scored: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (best,) = run_line(monkeypatch, *SMALL, f"store={tmp_path}", f"train.pause_at={at}")
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith(f"paused at step {at} of 12") and line.endswith("command without train.pause_at goes on")
    assert (best is not None) == ("(validation loss " in line) == scored


def test_settings_may_stand_on_both_sides_of_a_flag_and_a_later_one_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = run_line(
        monkeypatch,
        *SMALL,
        "train.steps=2",
        "hydra/launcher=basic",
        "-m",
        f"store={tmp_path}",
        "train.steps=1",
        "seed=0,1",
    )
    assert len(scores) == 2
    out, err = capsys.readouterr()
    assert [line for line in err.splitlines() if line.startswith("#")] == ["#0  seed=0", "#1  seed=1"]
    runs, (empty, *answer) = out.splitlines()[:2], out.splitlines()[2:]
    assert all(line.startswith("    success") for line in runs) and empty == ""
    assert re.match(r"sweep-\w+: 1 configuration, ranked by validation/accuracy: mean over 2 seeds", answer[0])
    assert answer[-1].startswith("train it: python train.py model=tiny ") and answer[-1].endswith(f"store={tmp_path}")
    assert "    1 step  lr: " in err
    assert {path.name for path in tmp_path.iterdir()} >= {"runs", "cache"}


def test_a_mistake_in_what_is_short_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for given in ("smoke=maybe", "smoke=true", "optim.lr=logspace(0,1,3)"):
        monkeypatch.setattr(sys, "argv", ["train.py", given])
        with pytest.raises(SystemExit) as caught:
            launch(lambda: None)
        assert caught.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {given.partition('=')[0]}: ")


CHDIR = "hydra.job.chdir: got true; your files are found from where you are, so leave it false"


def test_a_run_elsewhere_than_where_its_files_are_found_from_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        run_line(monkeypatch, *SMALL, f"store={tmp_path}", "hydra.job.chdir=true", f"hydra.run.dir={tmp_path}/there")
    assert caught.value.code == 2
    assert capsys.readouterr().err.splitlines() == [f"error: {CHDIR}"]
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("launcher", ["basic", "pool"])
def test_a_multirun_elsewhere_trains_nothing_and_says_why(launcher: str, tmp_path: Path) -> None:
    arguments = ["-m", f"hydra/launcher={launcher}", *SMALL, f"store={tmp_path / 'store'}", "hydra.job.chdir=true"]
    command = [sys.executable, str(CONF.parent / "train.py"), *arguments, "train.steps=1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode in (1, 2)
    assert CHDIR in done.stdout + done.stderr and "Traceback" not in done.stdout + done.stderr
    assert list(tmp_path.rglob("metrics.jsonl")) == []


def test_failed_runs_exit_with_one_and_what_else_there_is_to_say(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for error, said in ((RunsFailed(), ""), (RunsFailed("no second stage"), "error: no second stage\n")):

        def command(error: RunsFailed = error) -> None:
            raise error

        monkeypatch.setattr(sys, "argv", ["train.py"])
        with pytest.raises(SystemExit) as caught:
            launch(command)
        assert caught.value.code == 1
        assert capsys.readouterr().err == said


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


@pytest.mark.parametrize(
    ("command", "status"),
    [([str(CONF.parent / "train.py")], 141), (["-m", "loralab.cli.main"], 0)],
    ids=["train", "loralab"],
)
def test_help_whose_reader_stops_reading_ends_quietly(command: list[str], status: int) -> None:
    """Also if all of it fits into the buffer, which is 16 times as large since Python 3.14."""
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run([sys.executable, *command, "--help"], stdout=write, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (status, b"")


@pytest.mark.slow
@pytest.mark.parametrize("multirun", ["", "-m seed=0,1"])
@pytest.mark.parametrize(
    ("streams", "status"),
    [(">&-", 0), ("2>&-", 0), ("<&- >&- 2>&-", 0), ("2>/dev/full", 0), (">/dev/full", 2), ("> >(:)", 141)],
)
def test_streams_that_take_nothing_do_not_fail_a_run(streams: str, status: int, multirun: str, tmp_path: Path) -> None:
    words = [sys.executable, str(CONF.parent / "train.py"), *SMALL, "train.steps=2", f"store={tmp_path / 'store'}"]
    command = f"exec {shlex.join(words)} {multirun} {streams}"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == status, done.stderr
    records = [json.loads(path.read_text())["status"] for path in (tmp_path / "store").glob("runs/*/record.json")]
    assert records == ["success"] * (2 if multirun else 1)
    assert "Traceback" not in done.stderr
    assert ("error: standard output: No space left on device" in done.stderr) == (status == 2)
