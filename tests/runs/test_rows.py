"""Rows of a store: what is in a row, for runs in every state and of every version."""

import json
import shutil
from pathlib import Path

import pytest

from loralab.errors import UserError
from loralab.runs.rows import known_keys, lower_is_better, row_of, rows_of
from loralab.store.run_directory import RunDirectory
from loralab.tasks import METRICS, better


def changed(run: RunDirectory, store: Path, **config: object) -> RunDirectory:
    """A copy of the run whose record has these nodes in its config, or lacks those that are None."""
    copied = RunDirectory(store / "runs" / run.path.name)
    shutil.copytree(run.path, copied.path)
    record = json.loads((copied.path / "record.json").read_text())
    merged = record["config"] | config
    record["config"] = {key: value for key, value in merged.items() if value is not None}
    (copied.path / "record.json").write_text(json.dumps(record))
    return copied


def test_a_store_that_is_not_there_is_an_error_and_an_empty_one_has_no_rows(tmp_path: Path) -> None:
    assert rows_of(tmp_path) == []
    with pytest.raises(UserError, match=rf"^--store: there is no folder {tmp_path}/nope; "):
        rows_of(tmp_path / "nope")


def test_a_row_has_settings_by_key_and_scores_as_in_the_tables_of_a_sweep(finished: RunDirectory) -> None:
    row, record = row_of(finished), finished.finished()
    assert record is not None
    assert (row.value("model"), row.value("task"), row.value("lora.ratio")) == ("tiny", "rotten_tomatoes", 4)
    assert row.value("test/accuracy") == record["metrics"]["test"]["last"]["accuracy"]
    assert row.value("best/validation/loss") == record["metrics"]["validation"]["best"]["loss"]
    assert not {"store", "name", "tracker.name", "bottleneck.size", "prompt.tokens"} & row.settings.keys()
    assert row.settings.keys() <= set(known_keys())


def test_a_key_that_a_record_lacks_has_the_value_of_its_time(tmp_path: Path, finished: RunDirectory) -> None:
    older = changed(finished, tmp_path, probe=None, lora={"rank": 2, "ratio": 1.0})
    row = row_of(older)
    assert (row.value("probe.every"), row.value("lora.dora"), row.value("lora.rank")) == (None, False, 2)
    assert "lora.dora" in row.settings and "lora.alpha" not in row.settings


def test_own_data_goes_by_its_title_or_its_file(tmp_path: Path, finished: RunDirectory) -> None:
    files = {"train": "some/where/my ads.csv"}
    own = changed(finished, tmp_path / "one", task={"name": "local", "files": files})
    titled = changed(finished, tmp_path / "two", task={"name": "local", "files": files, "title": "ads"})
    assert [row_of(run).value("task") for run in (own, titled)] == ["my ads", "ads"]


def test_a_run_without_a_record_has_the_settings_of_its_config(tmp_path: Path, finished: RunDirectory) -> None:
    cut = changed(finished, tmp_path)
    (cut.path / "record.json").unlink()
    assert (row_of(cut).value("status"), row_of(cut).value("lora.ratio")) == ("cut off", 4)
    (cut.path / "config.yaml").write_text("- damaged")
    assert row_of(cut).settings == {}


def test_every_metric_has_its_better_end() -> None:
    for metric in {name for kind in METRICS.values() for name in kind}:
        assert lower_is_better(f"test/{metric}") == better(metric, 1.0, 2.0)
    assert lower_is_better("best/test/loss")
