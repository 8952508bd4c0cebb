"""Tests of Trackio's runs, as its own storage reads them; each test has a project, since a process has one folder."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.pages import METRICS, line, tracker

pytestmark = [
    pytest.mark.skipif(find_spec("trackio") is None, reason="trackio is not installed"),
    pytest.mark.filterwarnings("ignore"),  # its own
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of this process's projects, which Trackio chooses when it is imported."""
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    from trackio.utils import TRACKIO_DIR

    return Path(TRACKIO_DIR)


def points(project: str, name: str, run: str = "run-name-0123456789") -> list[tuple[int, float]]:
    """The points of all runs of this name."""
    from trackio.sqlite_storage import SQLiteStorage

    found: list[tuple[int, float]] = []
    for record in SQLiteStorage.get_run_records(project):
        if record["name"] == run:
            rows = SQLiteStorage.get_logs(project, run, run_id=record["id"])
            found += [(row["step"], row[name]) for row in rows if name in row]
    return sorted(found)


def config(project: str) -> dict[str, Any]:
    from trackio import Api

    (run,) = Api().runs(project)
    return run.config or {}


def test_a_run_has_its_lines_scores_settings_and_group_and_prints_nothing(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with tracker(tmp_path, "trackio", project="one") as opened:
        opened.begin([])
        opened.log(line(2))
        opened.log(line(4, "validation", loss=0.4, accuracy=0.8))
        opened.summarise("success", METRICS)
        assert opened.where is not None and opened.where.every.startswith(
            f"{folder}; `TRACKIO_DIR={folder} trackio show"
        )
    assert capsys.readouterr().out == ""
    assert points("one", "train/loss") == [(2, 0.5)] and points("one", "lr_B") == [(2, 0.016), (4, 0.016)]
    assert points("one", "best/validation/accuracy") == [(2, 0.9)]
    assert {"lora.ratio": 16.0, "tags": ["a"], "_Group": "study"}.items() <= config("one").items()


def test_a_run_that_was_killed_goes_on_in_its_page_with_each_point_once(tmp_path: Path) -> None:
    import trackio

    killed = tracker(tmp_path, "trackio", project="two")
    killed.begin([])
    for step in (1, 3, 4, 5):
        killed.log(line(step))
    trackio.finish()  # its thread writes twice a second
    with tracker(tmp_path, "trackio", project="two") as resumed:
        resumed.begin([line(1), line(2), line(3)])
        for step in (4, 5, 6):
            resumed.log(line(step))
    assert points("two", "train/loss") == [(step, 1 / step) for step in (1, 2, 3, 4, 5, 6)]
    assert config("two")["lora.ratio"] == 16
