"""Tests of the console: a progress bar on a terminal, plain lines elsewhere, and the record's scores at the end."""

import copy
import io
from typing import Any

import pytest

from loralab.runs.console import PLAIN_LINES, Console, group_table, scores_table, summary
from loralab.store.mirror import Place
from loralab.store.record import Record
from loralab.store.run_directory import RunDirectory

GROUPS = [
    {"name": "A", "tensors": 4, "parameters": 2048, "lr": 0.001, "weight_decay": 0.0},
    {"name": "B", "tensors": 4, "parameters": 1_000_000, "lr": 0.016, "weight_decay": 0.1},
]


class Terminal(io.StringIO):
    """Takes text, and says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def record(finished: RunDirectory) -> Record:
    """A copy of a real record."""
    found = finished.finished()
    assert found is not None
    return copy.deepcopy(found)


def show_run(console: Console, steps: int) -> None:
    """What a run of so many steps, with two evaluations, tells its console."""
    console.started("tiny-x-0123456789", steps, GROUPS, resumed_at=0)
    for step in range(1, steps + 1):
        console.step(step)
        console.line({"step": step, "split": "train", "values": {"loss": 1 / step}, "seconds": step / 10})
        if step % (steps // 2) == 0:
            values = {"accuracy": 0.5, "loss": None}
            console.line({"step": step, "split": "validation", "values": values, "seconds": step / 10})
    console.close()


@pytest.mark.parametrize("steps", [100, 1000])
def test_a_plain_log_has_ten_lines_of_training_loss_and_every_evaluation(steps: int) -> None:
    err = io.StringIO()
    show_run(Console(err, io.StringIO()), steps)
    lines = err.getvalue().splitlines()
    assert sum("  train  " in line for line in lines) == PLAIN_LINES
    assert sum("  validation  accuracy 0.5000  loss -" in line for line in lines) == 2
    assert "\x1b" not in err.getvalue()


def test_where_a_run_is_mirrored_is_a_line_of_a_single_run() -> None:
    alone, one_of_many, place = io.StringIO(), io.StringIO(), Place("outputs/mirror; `show it` shows it", "outputs")
    Console(alone, io.StringIO()).mirrored(place)
    Console(one_of_many, io.StringIO(), title="#0").mirrored(place)
    assert (alone.getvalue(), one_of_many.getvalue()) == ("mirrored in outputs/mirror; `show it` shows it\n", "")


def test_plain_lines_have_no_blanks_at_their_ends(record: Record, finished: RunDirectory) -> None:
    err, out = io.StringIO(), io.StringIO()
    console = Console(err, out)
    show_run(console, 20)
    console.finished(record, finished.path)
    for line in (err.getvalue() + out.getvalue()).splitlines():
        assert line == line.rstrip()


def test_a_terminal_has_a_bar_in_place_of_training_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    err = Terminal()
    show_run(Console(err, io.StringIO()), 20)
    assert "\u2501" in err.getvalue() and "0/20" in err.getvalue()
    assert "  train  " not in err.getvalue()
    assert err.getvalue().count("accuracy 0.5000") == 2


@pytest.mark.parametrize("screen", [io.StringIO, Terminal])
def test_a_run_of_no_steps_is_shown(screen: type[io.StringIO], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    err = screen()
    console = Console(err, io.StringIO())
    console.started("name", 0, GROUPS, resumed_at=0)
    console.line({"step": 0, "split": "validation", "values": {"loss": 1.0}, "seconds": 0.5})
    console.step(0)
    console.close()
    assert "name: 0 steps" in err.getvalue().replace("\x1b[1m", "").replace("\x1b[0m", "")
    assert "step 0/0  validation  loss 1.0000" in err.getvalue()


def test_a_dumb_terminal_has_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    err = Terminal()
    show_run(Console(err, io.StringIO()), 20)
    assert "\x1b" not in err.getvalue()


def test_every_group_is_shown_with_its_resolved_rate_and_decay() -> None:
    assert group_table(GROUPS) == [
        "group  tensors  parameters     lr  weight decay",
        "A            4       2,048  0.001             0",
        "B            4   1,000,000  0.016           0.1",
    ]


def test_a_single_run_warns_and_one_of_many_does_not() -> None:
    shown = {}
    for title in (None, "seed=1"):
        err = io.StringIO()
        console = Console(err, io.StringIO(), title)
        console.warn("it is slow")
        assert err.getvalue() == "", "a mistake that ends the run before it starts is one line alone"
        console.started("name", 100, GROUPS, resumed_at=0)
        shown[title] = err.getvalue().splitlines()[0]
    assert shown == {None: "warning: it is slow", "seed=1": "seed=1"}


def test_a_resumed_run_says_where_it_goes_on() -> None:
    err = io.StringIO()
    Console(err, io.StringIO()).started("name", 100, GROUPS, resumed_at=37)
    assert "run name: 100 steps, going on from step 37" in err.getvalue()


def test_a_single_run_says_how_many_rows_were_read() -> None:
    for title, shown in ((None, "run name: 100 steps; rows: train 1,048, validation 6"), ("lr=1", "lr=1")):
        err = io.StringIO()
        console = Console(err, io.StringIO(), title)
        console.read({"train": 1048, "validation": 6}, "classes: ham 900, spam 148; cpu, fp32")
        console.started("name", 100, GROUPS, resumed_at=0)
        assert err.getvalue().splitlines()[0] == shown
        assert ("classes: ham 900, spam 148; cpu, fp32" in err.getvalue().splitlines()) == (title is None)


def test_an_interrupted_run_says_that_it_can_go_on() -> None:
    err = io.StringIO()
    Console(err, io.StringIO()).interrupted(3, 10)
    assert err.getvalue().startswith("stopped at step 3 of 10; a checkpoint is written")


def test_the_last_lines_are_on_standard_output_and_end_with_the_place(record: Record, finished: RunDirectory) -> None:
    err, out = io.StringIO(), io.StringIO()
    Console(err, out).already_done(record, finished.path)
    assert err.getvalue() == ""
    lines = out.getvalue().splitlines()
    assert lines[:2] == ["this run is already done (--again trains it once more); its record:", "success"]
    assert lines[-1] == str(finished.path)
    accuracy = record["metrics"]["test"]["last"]["accuracy"]
    assert any(line.startswith("test ") and f"{accuracy:.4f}" in line for line in lines)


def test_a_run_of_a_multirun_is_a_few_lines(record: Record, finished: RunDirectory) -> None:
    err, out = io.StringIO(), io.StringIO()
    console = Console(err, out, "#3  lora.ratio=4 seed=1")
    show_run(console, 100)
    console.finished(record, finished.path)
    assert err.getvalue().splitlines()[:2] == ["#3  lora.ratio=4 seed=1", "    100 steps  lr: A 0.001  B 0.016"]
    assert len(err.getvalue().splitlines()) == 4
    assert out.getvalue().startswith("    success  accuracy  validation 0.") and out.getvalue().count("\n") == 1


def test_a_run_of_no_steps_has_trained_no_parameter(record: Record) -> None:
    assert summary(record)[-1].startswith("trained ")
    record["steps"] = 0
    assert summary(record)[-1].startswith("trainable: ")


def test_last_and_best_are_one_line_where_they_are_one_step() -> None:
    scores = {"step": 40, "accuracy": 0.75, "loss": 0.5}
    table = scores_table({"primary": "accuracy", "validation": {"best": scores, "last": scores}})
    assert table[1] == "validation  last and best    40    0.7500  0.5000"
    early = {"step": 20, "accuracy": 0.8, "loss": None}
    table = scores_table({"primary": "accuracy", "validation": {"best": early, "last": scores}})
    assert table[1:] == ["validation  last    40    0.7500  0.5000", "            best    20    0.8000       -"]


def test_a_diverged_run_says_where_and_may_have_no_scores(record: Record) -> None:
    nothing = {"primary": "accuracy", "validation": {"best": None, "last": None}}
    lines = summary({**record, "status": "diverged", "steps": 7, "metrics": nothing})
    assert lines[0] == "diverged at step 7"
    assert scores_table(nothing) == []


def test_advice_is_for_a_single_run() -> None:
    alone, one_of_many = io.StringIO(), io.StringIO()
    Console(alone, io.StringIO()).advise("less")
    Console(one_of_many, io.StringIO(), title="#0").advise("less")
    assert (alone.getvalue(), one_of_many.getvalue()) == ("advice: less\n", "")


def test_a_failed_run_shows_the_last_line_of_its_error() -> None:
    failed: Any = {
        "status": "failed",
        "error": "Traceback ...\n  File ...\nRuntimeError: out of luck\n",
        "metrics": None,
    }
    assert summary(failed) == ["failed", "RuntimeError: out of luck"]


def test_the_streams_are_the_processs_own(capsys: pytest.CaptureFixture[str]) -> None:
    Console.for_terminal().interrupted(1, 2)
    assert "stopped at step 1" in capsys.readouterr().err


def test_texts_of_files_and_arguments_hand_no_controls_to_the_terminal(record: Record, finished: RunDirectory) -> None:
    evil = "\x1b[2J\u202e"
    for title in (None, evil):
        err, out = io.StringIO(), io.StringIO()
        console = Console(err, out, title)
        console.warn(f"a column {evil}")
        console.started(evil, 10, GROUPS, resumed_at=0)
        console.finished(record, finished.path.parent / evil)
        said = err.getvalue() + out.getvalue()
        assert "\\x1b[2J\\u202e" in said and not set("\x1b\u202e") & set(said)
