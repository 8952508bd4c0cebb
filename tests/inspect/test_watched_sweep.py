"""A sweep as the page shows it: every state of a run, the columns that differ, and how the sweep ended."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from loralab.errors import UserError
from loralab.inspect.watched_sweep import WatchedSweep, listed, newest
from loralab.tuning.tuned import Tuned
from tests.live_sweeps import LiveSweep, key, log
from tests.store.records import record

SETTINGS = [{"lora.ratio": ratio, "seed": seed} for ratio in ("1", "4") for seed in ("0", "1")]


def look(sweep: LiveSweep) -> dict[str, Any]:
    return WatchedSweep(sweep.store, sweep.folder.about.id).look()


def states(sweep: LiveSweep) -> list[str]:
    return [run["state"] for run in look(sweep)["runs"]]


def test_a_run_waits_runs_and_is_done_diverged_or_failed(tmp_path: Path) -> None:
    sweep = LiveSweep(tmp_path, SETTINGS)
    watched = WatchedSweep(tmp_path, "sweep-0123456789")
    assert watched.look()["summary"] == "0 of 4 done, 4 waiting; about 2 min left"
    for number, status in enumerate(("success", "diverged", "failed")):
        sweep.begins(number)
        for step in (1, 5):
            sweep.comes_to(number, step, accuracy=step / 10, loss=None if status == "diverged" else 1.0)
        assert watched.look()["runs"][number]["state"] == "running"
        assert watched.look()["runs"][number] | {"seconds": 0, "hash": ""} == {
            "run": key(number), "hash": "", "state": "running", "note": "", "step": 5, "steps": 10, "rate": 2.0,
            "settings": SETTINGS[number], "seconds": 0, "primary": None,
            "scores": {"validation/accuracy": 0.5, "validation/loss": None if status == "diverged" else 1.0},
        }  # fmt: skip
        sweep.ends(number, status)
    found = watched.look()
    assert [run["state"] for run in found["runs"]] == ["done", "diverged", "failed", "waiting"]
    assert found["summary"].startswith("1 of 4 done, 1 diverged, 1 failed, 1 waiting; about ")
    assert (found["over"], found["total"], found["state"]) == (3, 4, "training")
    assert [run["note"] for run in found["runs"]] == ["", "", "RuntimeError: out of luck", ""]
    assert [(run["step"], run["rate"]) for run in found["runs"]] == [(10, None), (10, None), (5, None), (0, None)]


def test_columns_are_the_settings_that_differ_and_the_validation_metrics_the_primary_one_first(tmp_path: Path) -> None:
    sweep = LiveSweep(tmp_path, [*SETTINGS, {"lora.ratio": "4", "seed": "1", "probe.every": "5", "eval.every": "6"}])
    assert [column["title"] for column in look(sweep)["settings"]] == ["ratio", "seed", "probe.every", "eval.every"]
    sweep.begins(0)
    sweep.comes_to(0, 5, loss=1.0, macro_f1=0.1, accuracy=0.5)
    metrics = look(sweep)["metrics"]
    assert [metric["title"] for metric in metrics] == ["macro_f1", "accuracy", "loss"]
    assert [metric["lower"] for metric in metrics] == [False, False, True]
    sweep.ends(0)
    assert [metric["title"] for metric in look(sweep)["metrics"]] == ["accuracy", "macro_f1", "loss"]


def test_a_record_from_before_the_launch_says_nothing_of_a_run_that_is_trained_again(tmp_path: Path) -> None:
    sweep = LiveSweep(tmp_path, SETTINGS)
    for number in (0, 1):
        sweep.run(number).begin("")
        sweep.run(number).finish(record("failed", ended=time.time() - 60))
    sweep.run(2).begin("")
    log(sweep.run(2).path, 3, loss=1.0)
    sweep.begins(0)
    assert states(sweep) == ["running", "waiting", "waiting", "waiting"]
    sweep.dies()
    assert states(sweep) == ["failed", "failed", "cut off", "not begun"]


def test_a_sweep_that_ended_was_stopped_or_was_killed_is_shown_as_such(tmp_path: Path) -> None:
    ended, stopped, killed = (LiveSweep(tmp_path, SETTINGS, name=f"sweep-{i}") for i in range(3))
    killed.begins(0)
    killed.comes_to(0, 4)
    ended.folder.close()
    stopped.observer.stopping(1)
    assert look(stopped)["state"] == "stopping"
    stopped.folder.close()
    killed.dies()
    assert [look(sweep)["state"] for sweep in (ended, stopped, killed)] == ["ended", "stopped", "killed"]
    found = look(killed)
    assert found["summary"] == "0 of 4 done, 1 cut off, 3 not begun; its process was killed: the same command goes on"
    assert found["runs"][0]["step"] == 4
    (tmp_path / "live" / "sweep-0" / "now.json").write_text("{")
    assert look(ended)["state"] == "killed", "it has not said how it ended"


def test_the_last_sweep_is_one_at_work_else_the_one_that_began_last(tmp_path: Path) -> None:
    assert newest(tmp_path) is None
    with pytest.raises(UserError, match=r"'first' begins the id of no sweep in .*live; there is none yet"):
        newest(tmp_path, "first")
    for number, name in enumerate(("first-11", "first-12", "sweep-1")):
        sweep = LiveSweep(tmp_path, SETTINGS, name=name)
        if name != "first-11":
            sweep.folder.close()
        os.utime(tmp_path / "live" / name / "lock", (number, number))
    assert listed(tmp_path) == ["first-11", "sweep-1", "first-12"]
    assert newest(tmp_path) == newest(tmp_path, "last") == "first-11"
    assert newest(tmp_path, "first-12") == "first-12" and newest(tmp_path, "sweep") == "sweep-1"
    with pytest.raises(UserError, match=r"'x' begins the id of no sweep in .*; there are first-11, sweep-1, first-12"):
        newest(tmp_path, "x")


def test_a_figure_and_a_recommendation_are_those_of_this_sweep_and_not_of_an_earlier_one(tmp_path: Path) -> None:
    figure, name = tmp_path / "tune" / "mine-0123" / "tune.png", "mine-0123"
    settings = {"optim.lr": 1e-3}
    tuned = Tuned(
        file=figure.with_suffix(".yaml"), settings=settings, overrides=["optim.lr=0.001"], loss=0.5, plateau=None,
        noise=None, notes=[], predicted=[], runs=[], cost={"full_runs": 1.0, "seconds": 2.0},
    )  # fmt: skip
    tuned.write()
    figure.touch()
    for path in (figure, tuned.file):
        os.utime(path, (1, 1))
    sweep = LiveSweep(tmp_path, [{"optim.lr": "0.001"}], name=name, kind="tune", figures=[figure])
    assert (look(sweep)["figure"], look(sweep)["answer"]) == (None, [])
    assert look(sweep)["summary"] == "1 trial, 1 waiting; about 1 min left"
    for path in (figure, tuned.file):
        os.utime(path, (time.time() + 1,) * 2)
    assert look(sweep)["figure"] == str(figure)
    assert look(sweep)["answer"] == tuned.lines()


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"id": "../x"}', '{"id": "..", "kind": "", "title": "", "command": "", "figures": []}']
)
def test_a_damaged_sweep_is_one_line(text: str, tmp_path: Path) -> None:
    sweep = LiveSweep(tmp_path, SETTINGS)
    (tmp_path / "live" / "sweep-0123456789" / "sweep.json").write_text(text)
    with pytest.raises(UserError, match=r"sweep.json cannot be read"):
        look(sweep)


def test_a_run_may_not_name_another_folder(tmp_path: Path) -> None:
    sweep = LiveSweep(tmp_path, SETTINGS)
    sweep.folder.launched({"../../x": {}}, to_train=[], slots=1, at=1.0)
    with pytest.raises(UserError, match=r"it names other folders"):
        look(sweep)


def test_a_damaged_run_is_a_row_like_any_other(tmp_path: Path) -> None:
    sweep = LiveSweep(tmp_path, SETTINGS)
    sweep.begins(0)
    (sweep.run(0).path / "metrics.jsonl").write_text("{}\n")
    sweep.begins(1)
    sweep.ends(1)
    (sweep.run(1).path / "record.json").write_text("{")
    found = look(sweep)["runs"]
    assert [run["state"] for run in found] == ["damaged", "damaged", "waiting", "waiting"]
    assert "metrics.jsonl" in found[0]["note"] and "record.json" in found[1]["note"]
