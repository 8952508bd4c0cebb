"""A run's curves while it trains: lines are read once, and again where the run goes on from a checkpoint."""

import os
from pathlib import Path

import pytest

from loralab.errors import UserError
from loralab.inspect.watch_curves import MOST_POINTS, CurveFile
from tests.live_sweeps import log


def test_new_lines_are_added_and_one_without_an_end_waits(tmp_path: Path) -> None:
    curve = CurveFile(tmp_path)
    curve.read()
    assert (curve.values, curve.step, curve.rate, curve.version) == ({}, 0, None, 0)
    log(tmp_path, 1, loss=2.0)
    log(tmp_path, 1, "validation", loss=3.0, accuracy=0.5)
    log(tmp_path, 1, "test", accuracy=0.1)
    curve.read()
    assert curve.values == {
        "train/loss": [(1, 2.0)], "validation/loss": [(1, 3.0)], "validation/accuracy": [(1, 0.5)],
    }  # fmt: skip
    version = curve.version
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 2, "split": "train", ')
        stream.flush()
        curve.read()
        assert (curve.step, curve.version) == (1, version)
        stream.write('"values": {"loss": null}, "seconds": 9}\n')
    curve.read()
    assert curve.values["train/loss"] == [(1, 2.0), (2, None)] and curve.version > version
    assert curve.last("validation") == {"validation/loss": 3.0, "validation/accuracy": 0.5}
    assert curve.thinned()["train/loss"] == [[1, 2.0]], "a value that is not finite is not drawn"


def test_a_file_that_was_cut_is_read_from_the_start(tmp_path: Path) -> None:
    curve = CurveFile(tmp_path)
    log(tmp_path, 1, loss=2.0)
    size = (tmp_path / "metrics.jsonl").stat().st_size
    log(tmp_path, 2, loss=1.0)
    curve.read()
    version = curve.version
    os.truncate(tmp_path / "metrics.jsonl", size)
    curve.read()
    assert curve.values == {"train/loss": [(1, 2.0)]} and curve.version > version
    (tmp_path / "metrics.jsonl").unlink()
    curve.read()
    assert curve.values == {}


def test_the_rate_is_that_of_the_last_steps_without_evaluations(tmp_path: Path) -> None:
    curve = CurveFile(tmp_path)
    for step in range(1, 11):
        log(tmp_path, step, seconds=step, loss=1.0)
    log(tmp_path, 10, "validation", seconds=60, loss=1.0)
    for step in range(11, 14):
        log(tmp_path, step, seconds=60 + (step - 10) / 4, loss=1.0)
    curve.read()
    assert curve.rate == 4.0


def test_a_long_curve_is_drawn_by_means_of_neighbours(tmp_path: Path) -> None:
    curve = CurveFile(tmp_path)
    curve.values["train/loss"] = [(step, step % 2) for step in range(1, 10 * MOST_POINTS + 1)]
    points = curve.thinned()["train/loss"]
    assert len(points) == MOST_POINTS
    assert points[0] == [5.5, 0.5] and points[-1] == [10 * MOST_POINTS - 4.5, 0.5]


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(UserError, match=r"metrics.jsonl, after byte 0 is damaged"):
        CurveFile(tmp_path).read()
