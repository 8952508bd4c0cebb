"""A session's display: one line for each trial, one heading for all launches, and nothing on standard output."""

import math
from collections import Counter

import pytest

from loralab.sweeps.live_folder import About
from loralab.sweeps.scheduler import Job, Outcome
from loralab.tuning.progress import TuneProgress, title
from loralab.tuning.seen import Look
from loralab.tuning.trial import Observed, Trial, settings_of
from tests.runs.test_console import Terminal

SETTINGS = settings_of({"optim.lr": 1.6e-3, "seed": 0})
TRIAL = Trial(SETTINGS, 0.3)
JOB = Job("tiny-0123456789", "optim.lr=0.0016", 5.0, True)


def look(status: str = "paused", loss: float = 0.4312, error: str = "") -> Look:
    observed = Observed(SETTINGS, status, ((0.3, loss),))  # type: ignore[arg-type]
    return Look("tiny-0123456789", observed, 0.3, 12.0, error)


def progress() -> TuneProgress:
    return TuneProgress(["a heading"], 5.0, lambda: 1.4, About("tiny-0123456789", "tune", "a heading", ""))


def test_several_launches_are_one_thing(capsys: pytest.CaptureFixture[str]) -> None:
    shown = progress()
    for _ in range(2):
        with shown([JOB], 2, Counter()) as display:
            display.began(0, JOB)
            display.left(0)
            display.ended(JOB, Outcome("paused"))
        shown.conclude({JOB.key: JOB.title}, {JOB.key: Outcome("paused")})
        shown.trial(TRIAL, look(), was_there=False)
    out, err = capsys.readouterr()
    assert out == ""
    assert [" ".join(line.split()) for line in err.splitlines()] == [
        "a heading",
        "[ 1] optim.lr=1.6e-3 seed=0 to 30% validation loss 0.4312 12 s",
        "[ 2] optim.lr=1.6e-3 seed=0 to 30% validation loss 0.4312 12 s",
    ]


@pytest.mark.parametrize(
    ("seen", "there", "end"),
    [
        (look(), True, "validation loss 0.4312  12 s  (was there)"),
        (look("diverged", math.inf), False, "diverged at 30% of its steps"),
        (look("failed", error="OutOfMemoryError: x"), False, "failed: OutOfMemoryError: x; `loralab show 0123456789`"),
    ],
)
def test_a_line_says_what_came_of_a_trial(
    seen: Look, there: bool, end: str, capsys: pytest.CaptureFixture[str]
) -> None:
    progress().trial(TRIAL, seen, there)
    assert end in capsys.readouterr().err


def test_an_interrupted_session_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    progress().conclude({}, {JOB.key: Outcome("stopped")})
    assert capsys.readouterr().err.endswith("the same command goes on from here\n")


def test_on_a_terminal_the_runs_at_work_are_a_live_table(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    shown = progress()
    with shown([JOB], 2, Counter()):
        shown.began(0, JOB)
        shown.message(0, {"step": 7, "steps": 20, "values": "validation loss 0.5"})
    text = terminal.getvalue()
    assert "1.4 of at most 5 full runs" in text and "step 7/20" in text and "optim.lr=0.0016" in text


def test_a_title_names_the_settings_and_where_the_trial_stops() -> None:
    assert title(TRIAL) == "optim.lr=1.6e-3  seed=0  to 30%"
    assert title(Trial(SETTINGS)) == "optim.lr=1.6e-3  seed=0"
