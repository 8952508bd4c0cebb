"""Tests of MLflow's runs, as its own client reads them from a local database."""

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.pages import METRICS, line, tracker
from tests.small_runs import CONF

pytest.importorskip("mlflow")
pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's and SQLAlchemy's own


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def runs(store: Path) -> tuple[Any, list[Any]]:
    """A client of the store's database, and the runs of the project, the latest first."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{store / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("p")
    assert experiment is not None
    return client, list(client.search_runs([experiment.experiment_id]))


def points(client: Any, run: Any, name: str) -> list[tuple[int, float]]:
    return [(each.step, each.value) for each in client.get_metric_history(run.info.run_id, name)]


def test_a_run_has_its_lines_scores_settings_tags_and_status(tmp_path: Path) -> None:
    with tracker(tmp_path, "mlflow") as opened:
        opened.begin([])
        opened.log(line(2))
        opened.log(line(4, "validation", loss=0.4, accuracy=0.8))
        opened.summarise("diverged", METRICS)
        assert opened.where is not None and opened.where.every.startswith(f"sqlite:///{tmp_path}/mlflow.db; `mlflow ui")
    client, (run,) = runs(tmp_path)
    assert (run.info.run_name, run.info.status) == ("run-name", "FINISHED")
    assert points(client, run, "train/loss") == [(2, 0.5)]
    assert points(client, run, "lr_B") == [(2, 0.016), (4, 0.016)]
    assert points(client, run, "best/validation/accuracy") == [(2, 0.9)]
    assert run.data.params["lora.ratio"] == "16.0" and run.data.params["lora.targets"] == "['q', 'v']"
    tags = {"group": "study", "a": "true", "mlflow.source.git.commit": "abc", "loralab.status": "diverged"}
    assert tags.items() <= run.data.tags.items()


def test_a_run_that_was_killed_goes_on_in_its_page_with_each_point_once_and_one_that_ended_does_not(
    tmp_path: Path,
) -> None:
    killed = tracker(tmp_path, "mlflow")
    killed.begin([])
    for step in (1, 3, 4, 5):
        killed.log(line(step))
    with tracker(tmp_path, "mlflow", config={"other": 1}) as resumed:
        resumed.begin([line(1), line(2), line(3)])
        for step in (4, 5, 6):
            resumed.log(line(step))
        resumed.summarise("success", METRICS)
    client, (run,) = runs(tmp_path)
    assert points(client, run, "train/loss") == [(step, 1 / step) for step in (1, 3, 4, 5, 2, 6)]
    with tracker(tmp_path, "mlflow") as again:
        again.begin([])
    assert len(runs(tmp_path)[1]) == 2
    with tracker(tmp_path, "mlflow", directory=tmp_path / "other" / "tiny-0123456789") as elsewhere:
        elsewhere.begin([])
    assert len(runs(tmp_path)[1]) == 3


@pytest.mark.slow
def test_runs_that_begin_a_store_together_are_all_there(tmp_path: Path) -> None:
    """MLflow fails where two processes make its tables at once."""
    code = (
        "import sys; from pathlib import Path; from tests.pages import line, tracker\n"
        "with tracker(Path(sys.argv[1]), 'mlflow', run_id=sys.argv[2], name=sys.argv[2]) as opened:\n"
        "    opened.begin([]); opened.log(line(2))\n"
    )
    commands = [[sys.executable, "-c", code, str(tmp_path), f"run{number}"] for number in range(3)]
    started = [subprocess.Popen(command, cwd=CONF.parent) for command in commands]
    assert [process.wait() for process in started] == [0, 0, 0]
    assert sorted(run.info.run_name for run in runs(tmp_path)[1]) == ["run0", "run1", "run2"]


def test_odd_names_and_many_numbers_are_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    many = {f"layer.{number}.query/share1": 0.5 for number in range(1200)}
    config = {"lora": {"rank_pattern": {"*.query": 4}}, "long": "x" * 9000}
    with tracker(tmp_path, "mlflow", config=config, tags=["a b", "ü&%"], project="my/project") as opened:
        opened.begin([])
        opened.log(line(2, "probe", **many))
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
