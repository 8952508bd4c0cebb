"""Tests of the record's header, and of the record of a run whose process died."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from loralab.runs.plan import Plan, plan
from loralab.runs.record import as_yaml, fail, header
from loralab.runs.run import run
from loralab.store.record import FailedRecord, Record, split_scores
from loralab.store.run_directory import RunDirectory
from tests.small_runs import config


@pytest.fixture
def planned(tmp_path: Path) -> Plan:
    return plan(config(tmp_path))


def test_a_header_is_what_a_finished_record_begins_with(finished: RunDirectory, tmp_path: Path) -> None:
    record: Any = finished.record()
    assert record is not None
    begun = header(plan(config(finished.path.parent.parent)), started=record["started"])
    assert json.loads(json.dumps(begun)) == {name: record[name] for name in begun}
    assert list(record)[: len(begun)] == list(begun)


def test_a_records_keys_are_those_of_its_type(finished: RunDirectory, planned: Plan) -> None:
    done = finished.finished()
    assert done is not None and done.keys() | {"total_steps"} == Record.__annotations__.keys(), "of train.patience"
    fail(planned, "it died", started=5.0)
    failed = planned.directory.record()
    assert failed is not None and failed.keys() == FailedRecord.__annotations__.keys()
    assert list(split_scores(done["metrics"])) == ["validation", "test"]


def test_the_config_is_kept_as_it_ran(planned: Plan) -> None:
    kept = yaml.safe_load(as_yaml(planned.config))
    assert kept == header(planned, 0.0)["config"]
    assert list(kept)[:2] == ["model", "task"], "in the order of the schema"


def test_a_failure_is_a_record_with_its_text_and_is_tried_again(planned: Plan) -> None:
    before = time.time()
    fail(planned, "it died", started=5.0)
    record = planned.directory.record()
    assert record is not None
    assert record.items() >= header(planned, 5.0).items()
    assert (record["status"], record["error"], record["metrics"]) == ("failed", "it died", None)
    assert before <= record["ended"] <= time.time()
    assert planned.directory.finished() is None
    assert (planned.directory.path / "config.yaml").read_text() == as_yaml(planned.config)

    done = run(planned.config)
    assert done["status"] == "success" and planned.directory.record() == done


def test_a_failure_keeps_the_checkpoint_that_the_next_attempt_goes_on_from(planned: Plan) -> None:
    planned.directory.begin(as_yaml(planned.config))
    planned.directory.checkpoint.mkdir()
    (planned.directory.path / "executed").write_text("7")
    fail(planned, "it died", started=5.0)
    assert planned.directory.checkpoint.is_dir() and (planned.directory.path / "executed").read_text() == "7"
