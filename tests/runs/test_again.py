"""`--again` trains a finished run once more, in the same folder."""

from pathlib import Path
from typing import Any

import pytest

from loralab.runs.run import run
from loralab.store.trackers import NoTracker
from tests.small_runs import config


def test_again_replaces_a_run_and_keeps_its_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []

    def opened(**given: Any) -> NoTracker:
        told.append(given)
        return NoTracker()

    monkeypatch.setattr("loralab.runs.run.open_tracker", opened)
    first = run(config(tmp_path, "name=mine", "train.steps=2"))
    again = run(config(tmp_path, "tags=[a]", "train.steps=2", "train.again=true"))
    assert again["started"] > first["started"] and again["metrics"] == first["metrics"]
    assert [(each["name"], each["tags"]) for each in told] == [("mine", []), ("mine", ["a"])]
