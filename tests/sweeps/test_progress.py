"""A sweep's display: a line for each run that ends, a live table on a terminal, and every failure at the end."""

import io
import re
import time
from collections import Counter

import pytest

from loralab.sweeps.progress import SweepProgress
from loralab.sweeps.scheduler import Job, Outcome
from tests.runs.test_console import Terminal

TRACEBACK = "Traceback (most recent call last):\n  File ...\nRuntimeError: out of luck\n\n"
GOOD = Outcome("success", value=0.5, text="accuracy validation 0.5  1.0 s")


def progress(*seconds: float, known: bool = True, slots: int = 2, before: Counter[str] | None = None) -> SweepProgress:
    """A progress for jobs r-0, r-1, ... of this many seconds, which writes to strings."""
    jobs = [Job(f"r-{i}", f"seed={i}", each, known) for i, each in enumerate(seconds)]
    return SweepProgress(jobs, slots, Counter() if before is None else before, io.StringIO(), io.StringIO())


def text(stream: object) -> str:
    assert isinstance(stream, io.StringIO)
    return stream.getvalue()


def finish(shown: SweepProgress, number: int, outcome: Outcome = GOOD, *, took: float = 0.0) -> None:
    """Runs the job from start to end on slot 0; it began `took` seconds ago."""
    shown.began(0, shown.jobs[number])
    shown.running[0].began -= took
    shown.message(0, {"step": 0, "steps": 10})
    shown.message(0, {"step": 10})
    shown.left(0)
    shown.ended(shown.jobs[number], outcome)


def test_it_begins_with_what_is_there_and_what_is_to_do() -> None:
    with progress(60, 60, 120, before=Counter(success=3, diverged=1)) as shown:
        assert text(shown.err) == "7 runs, done before: 1 diverged, 3 success; 3 to train, 2 at a time, about 2 min\n"
    with progress(before=Counter(success=2)) as shown:
        assert text(shown.err) == "2 runs, done before: 2 success\n"
    with progress(5, 5, known=False) as shown:
        assert text(shown.err) == "2 runs; 2 to train, 2 at a time\n"


def test_a_sweep_lasts_no_less_than_its_longest_run() -> None:
    with progress(30, 600, slots=4) as shown:
        assert text(shown.err).endswith("about 10 min\n")


def test_without_a_terminal_each_run_that_ends_is_one_plain_line() -> None:
    with progress(*[5.0] * 10, known=False) as shown:
        finish(shown, 0)
        finish(shown, 1, Outcome("failed", text=TRACEBACK))
        shown.ended(shown.jobs[2], Outcome("diverged", text="at step 3", elsewhere=True))
    assert "\x1b" not in text(shown.out) + text(shown.err)
    assert [re.sub(r"  \d+ s left", "", line) for line in text(shown.out).splitlines()] == [
        "[ 1/10] success   seed=0  accuracy validation 0.5  1.0 s",
        "[ 2/10] failed    seed=1  RuntimeError: out of luck",
        "[ 3/10] diverged (elsewhere)  seed=2  at step 3",
    ]


def test_paused_runs_are_counted_and_how_they_go_on_is_said() -> None:
    with progress(60) as shown:
        finish(shown, 0, Outcome("paused", text="paused at step 3 of 10"))
        shown.conclude({"r-0": "seed=0", "r-1": "seed=1"}, {"r-0": Outcome("paused"), "r-1": GOOD})
    told = text(shown.out)
    assert "[1/1] paused    seed=0  paused at step 3 of 10" in told
    assert "2 runs: 1 success, 1 paused in" in told
    assert told.endswith("the same command without train.pause_at trains the paused ones on\n")


def test_runs_done_before_are_counted_in() -> None:
    with progress(5, before=Counter(success=3)) as shown:
        finish(shown, 0)
    assert text(shown.out).startswith("[4/4] success ")


def test_the_time_left_is_corrected_by_how_the_runs_here_have_done() -> None:
    with progress(*[10.0] * 5, slots=2) as shown:
        finish(shown, 0, took=30)  # three times as long as expected
        assert text(shown.out).endswith("  1 min left\n")  # 4 runs of 30 s on 2 slots
        shown.began(1, shown.jobs[1])
        shown.running[1].began -= 20
        finish(shown, 2, took=30)
    assert text(shown.out).endswith("  35 s left\n")  # 3 runs of 30 s, minus the 20 s that one of them has done


def test_where_nothing_is_known_the_first_run_that_ends_tells_the_pace() -> None:
    with progress(1.0, 1.0, 2.0, known=False, slots=1) as shown:
        assert "about" not in text(shown.err)
        finish(shown, 0, took=40)
    assert text(shown.out).endswith("  2 min left\n")


def test_a_run_that_did_not_reach_its_end_tells_no_pace() -> None:
    with progress(10.0, 10.0, slots=1) as shown:
        shown.began(0, shown.jobs[0])
        shown.message(0, {"step": 3, "steps": 10})
        shown.left(0)
        shown.ended(shown.jobs[0], Outcome("failed", text="its process died"))
    assert text(shown.out).endswith("  10 s left\n")


def test_a_warning_of_several_runs_is_one_line() -> None:
    with progress(5, 5) as shown:
        for slot in (0, 1):
            shown.began(slot, shown.jobs[slot])
            shown.message(slot, {"warning": "mlflow failed"})
    assert text(shown.err).splitlines()[1:] == ["warning: seed=0: mlflow failed"]


def test_where_the_runs_are_mirrored_is_one_line() -> None:
    with progress(5, 5) as shown:
        for slot in (0, 1):
            shown.began(slot, shown.jobs[slot])
            shown.message(slot, {"mirrored": "outputs/tensorboard"})
    assert text(shown.err).splitlines()[1:] == ["mirrored in outputs/tensorboard"]


def test_a_retry_says_why_in_one_line() -> None:
    with progress(5) as shown:
        shown.retried(shown.jobs[0], "Thread 0x1\n  stack\nit hung")
    assert text(shown.err).splitlines()[-1] == "retry: seed=0: it hung"


def test_stopping_says_how_many_write_and_promises_no_time_any_more() -> None:
    with progress(5, 5) as shown:
        shown.began(0, shown.jobs[0])
        shown.stopping(1)
        shown.left(0)
        shown.ended(shown.jobs[0], Outcome("stopped"))
    assert text(shown.err).splitlines()[-1] == "stopping: 1 run writes a checkpoint"
    assert text(shown.out) == "[1/2] stopped   seed=0\n"


def test_a_terminal_has_one_live_table_that_is_gone_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    shown = progress(10.0, 10.0, 10.0)
    shown.err = Terminal()
    with shown:
        assert shown.live is not None
        shown.began(0, shown.jobs[0])
        shown.began(1, Job("r-1", "x" * 100, 10.0, True))
        shown.message(0, {"step": 3, "steps": 10})
        shown.message(0, {"values": "train loss 0.5"})
        shown.live.refresh()
        drawn = text(shown.err)
        assert "0/3 done, 2 running" in drawn and "about 15 s left" in drawn
        assert re.search(r"0 +seed=0 +step 3/10 +train loss 0\.5", drawn)
        assert re.search(r"1 +x{57}\.\.\. +loading", drawn)
        shown.left(0)
        shown.ended(shown.jobs[0], Outcome("failed", text=TRACEBACK))
        shown.live.refresh()
        assert "1/3 done, 1 failed, 1 running" in text(shown.err)
    assert shown.live is None
    lines = [line for line in text(shown.err).splitlines() if "failed    seed=0  RuntimeError: out of luck" in line]
    assert len(lines) == 1 and "left" not in lines[0]
    assert text(shown.out) == ""


def test_a_title_with_brackets_is_shown_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    job = Job("r-0", "lora.targets=[q,v]", 5.0, True)
    shown = SweepProgress([job], 1, Counter(), Terminal(), io.StringIO())
    with shown:
        shown.began(0, job)
        assert shown.live is not None
        shown.live.refresh()
        assert text(shown.err).count("lora.targets=[q,v]") == 1
        shown.left(0)
        shown.ended(job, GOOD)
    assert text(shown.err).count("success   lora.targets=[q,v]") == 1


def test_a_dumb_terminal_has_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    shown = progress(5)
    shown.err = Terminal()
    with shown:
        finish(shown, 0)
    assert "\x1b" not in text(shown.err)
    assert text(shown.out).startswith("[1/1] success ")


def test_the_end_names_every_run_that_failed_or_diverged() -> None:
    outcomes = {
        "tiny-a-11": GOOD,
        "tiny-b-22": Outcome("failed", text=TRACEBACK),
        "tiny-c-33": Outcome("diverged", text="at step 7  1.0 s"),
        "tiny-d-44": Outcome("stopped"),
    }
    shown = progress(1)
    shown.entered = time.monotonic() - 100
    shown.conclude({key: f"seed={i} lora.ratio=4" for i, key in enumerate(outcomes)}, outcomes)
    assert text(shown.out).splitlines() == [
        "4 runs: 1 success, 1 diverged, 1 failed, 1 stopped in 2 min",
        "",
        "run  status    settings             what happened",
        "22   failed    seed=1 lora.ratio=4  RuntimeError: out of luck",
        "33   diverged  seed=2 lora.ratio=4  at step 7  1.0 s",
        "",
        "`loralab show RUN` has it whole; the same command tries the failed ones again",
    ]


def test_the_end_of_a_good_sweep_is_one_line_and_of_a_stopped_one_says_how_it_goes_on() -> None:
    shown = progress()
    shown.conclude({"a": "seed=0"}, {"a": GOOD})
    assert text(shown.out) == "1 run: 1 success\n"
    shown = progress()
    shown.conclude({"a": "seed=0"}, {"a": Outcome("stopped")})
    assert text(shown.out).splitlines() == ["1 run: 1 stopped", "the same command goes on from here"]


def test_settings_and_errors_hand_no_controls_to_the_terminal() -> None:
    evil = Job("r-0", "task.text=[\x1b[2J\u202e]", 5.0, True)
    with SweepProgress([evil], 1, Counter(), io.StringIO(), io.StringIO()) as shown:
        shown.retried(evil, "\x1b[2J")
        failed = Outcome("failed", text="column \x1b[2J")
        shown.ended(evil, failed)
    shown.conclude({"r-0": evil.title}, {"r-0": failed})
    said = text(shown.err) + text(shown.out)
    assert "task.text=[\\x1b[2J\\u202e]" in said and not set("\x1b\u202e") & set(said)
