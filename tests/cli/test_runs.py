"""The list of runs and a run's page: every state has a line."""

import json
import multiprocessing
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from loralab.cli.runs import listing, shown
from loralab.errors import UserError
from loralab.runs.run import run
from loralab.store.record import Record
from loralab.store.run_directory import RunDirectory, record_of, status
from tests.small_runs import config
from tests.store.records import record


def unfinished(store: Path, name: str = "tiny-x-0123456789", step: int | None = None) -> RunDirectory:
    """The directory of a run whose process was killed."""
    run = RunDirectory(store / "runs" / name)
    run.begin(OmegaConf.to_yaml(OmegaConf.structured(config(store))))
    if step is not None:
        lines = [{"step": s, "split": "train", "values": {"loss": 1.0}} for s in range(1, step + 1)]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (run.path / "metrics.jsonl").write_text(text + '{"step": 9')  # the last line is truncated
    return run


def failed(store: Path) -> RunDirectory:
    """A run that ended in an exception, with the record that `run` writes."""
    run = unfinished(store, "tiny-x-fa11ed0000")
    record = {"status": "failed", "error": "Traceback\nRuntimeError: out of luck\n", "metrics": None}
    origin = {"git": {"commit": None, "diff": None}, "versions": {"python": "3", "torch": "2", "transformers": "5"}}
    run.finish({**record, **origin, "started": 1.0, "ended": 2.0, "config": {}, "name": run.path.name})
    return run


def done(run: RunDirectory) -> Record:
    """The record of a finished run."""
    record = run.finished()
    assert record is not None
    return record


def _hold(run: RunDirectory, held: Any) -> None:
    with run.hold(wait=False):
        held.set()
        time.sleep(60)


def test_an_empty_store_says_how_to_make_a_run(tmp_path: Path) -> None:
    assert listing(tmp_path) == [f"no runs in {tmp_path / 'runs'}; `python train.py` makes one"]


def test_a_finished_run_has_its_figures_at_the_last_step(finished: RunDirectory) -> None:
    header, line = listing(finished.path.parent.parent)
    assert header.split() == ["run", "status", "metric", "validation", "test", "seconds", "when"]
    metrics = done(finished)["metrics"]
    values = [f"{metrics[split]['last']['accuracy']:.4f}" for split in ("validation", "test")]
    assert line.split()[:5] == [finished.path.name, "success", "accuracy", *values]


def test_every_state_has_its_word_and_the_latest_is_last(tmp_path: Path, finished: RunDirectory) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    (runs / finished.path.name).symlink_to(finished.path)  # ended before the others were made
    cut = unfinished(tmp_path, step=7)
    fell = failed(tmp_path)
    assert status(finished) == "success"
    assert status(cut) == "cut off at step 7"
    assert status(unfinished(tmp_path, "tiny-x-0000000000")) == "cut off at step 0"
    assert status(fell) == "failed"
    names = [line.split()[0] for line in listing(tmp_path)[1:]]
    assert names[0] == finished.path.name
    assert len(names) == 4


def test_a_damaged_record_hides_no_other_run(tmp_path: Path, finished: RunDirectory) -> None:
    for name in ("whole-0000000001", "cut-0000000002"):
        shutil.copytree(finished.path, tmp_path / "runs" / name)
    (tmp_path / "runs" / "cut-0000000002" / "record.json").write_text('{"status": ')
    _, *lines, why = listing(tmp_path)
    states = {line.split()[0]: line.split()[1] for line in lines}
    assert states == {"whole-0000000001": "success", "cut-0000000002": "damaged"}
    assert why.startswith(f"{tmp_path}/runs/cut-0000000002/record.json is damaged (")


def _record(run: RunDirectory, **changes: Any) -> None:
    (run.path / "record.json").write_text(json.dumps(record("success", **changes)))


DAMAGES: dict[str, Callable[[RunDirectory], object]] = {
    "no metrics": lambda run: _record(run, metrics=None),
    "a time out of range": lambda run: _record(run, ended=1e20),
    "a directory for a record": lambda run: (run.path / "record.json").mkdir(),
    "a FIFO for a record": lambda run: os.mkfifo(run.path / "record.json"),
    "a loop of links for a record": lambda run: (run.path / "record.json").symlink_to("record.json"),
    "brackets in brackets": lambda run: (run.path / "record.json").write_text("[" * 200_000),
    "metrics without UTF-8": lambda run: (run.path / "metrics.jsonl").write_bytes(b"\xff\xfe\n"),
    "metrics that are no objects": lambda run: (run.path / "metrics.jsonl").write_text("3\n"),
    "a FIFO for metrics": lambda run: os.mkfifo(run.path / "metrics.jsonl"),
    "a directory for metrics": lambda run: (run.path / "metrics.jsonl").mkdir(),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_run_is_listed_with_its_reason_and_hides_no_other(
    tmp_path: Path, finished: RunDirectory, damage: Callable[[RunDirectory], object]
) -> None:
    shutil.copytree(finished.path, tmp_path / "runs" / finished.path.name)
    run = unfinished(tmp_path)
    damage(run)
    _, *lines, why = listing(tmp_path)
    states = {line.split()[0]: line.split()[1] for line in lines}
    assert states == {run.path.name: "damaged", finished.path.name: "success"}
    assert why.startswith(f"{run.path}/") and ("damaged (" in why or "cannot be read (" in why)


@pytest.mark.parametrize("text", ["- a list\n", "{", "\x00"])
def test_runs_are_listed_whatever_their_config_says(tmp_path: Path, text: str) -> None:
    (unfinished(tmp_path).path / "config.yaml").write_text(text)
    assert [line.split()[1] for line in listing(tmp_path)[1:]] == ["cut"]


def test_a_run_whose_lock_is_held_is_running(tmp_path: Path) -> None:
    run = unfinished(tmp_path, step=3)
    context = multiprocessing.get_context("fork")
    held = context.Event()
    holder = context.Process(target=_hold, args=(run, held))
    holder.start()
    try:
        assert held.wait(10)
        assert status(run) == "running, step 3"
    finally:
        holder.kill()
        holder.join()
    assert status(run) == "cut off at step 3"


def test_a_diverged_run_without_scores_has_dashes(tmp_path: Path, finished: RunDirectory) -> None:
    run = unfinished(tmp_path)
    metrics = {"primary": "accuracy", "validation": {"best": None, "last": None}}
    run.finish({**record_of(finished), "status": "diverged", "metrics": metrics})
    assert listing(tmp_path)[1].split()[1:5] == ["diverged", "accuracy", "-", "-"]
    assert any(line.startswith("diverged at step") for line in shown(run))


def test_a_runs_page_has_command_figures_groups_origin_and_files(finished: RunDirectory) -> None:
    record = done(finished)
    page = "\n".join(shown(finished))
    assert re.search(r"^λ 4, s λ 4, lr_A \S+ \(the rate law.s\)$", page, re.MULTILINE)
    assert page.startswith(f"{finished.path.name}\npython train.py model=tiny ")
    for expected in ("success", "weight decay", "CPU threads: 1", "torch ", "adapter/adapter_model.safetensors"):
        assert expected in page
    assert f"{record['metrics']['test']['best']['accuracy']:.4f}" in page


def test_pages_of_runs_without_figures(tmp_path: Path) -> None:
    assert "cut off at step 4" in shown(unfinished(tmp_path, step=4))
    page = shown(failed(tmp_path))
    assert "failed" in page and "RuntimeError: out of luck" in page and any("no git checkout" in line for line in page)


def test_a_run_without_a_record_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no record yet \(cut off at step 2\)"):
        record_of(unfinished(tmp_path, step=2))


def test_a_paused_run_is_listed_with_its_step_and_its_page_has_the_command_that_goes_on(tmp_path: Path) -> None:
    paused = run(config(tmp_path, "train.pause_at=7"))
    (path,) = tmp_path.glob("runs/*")
    _, line = listing(tmp_path)
    last = paused["metrics"]["validation"]["last"]
    assert line.removeprefix(path.name).strip().startswith("paused at step 7 of 12  accuracy")
    assert line.split()[7:10] == ["accuracy", f"{last['accuracy']:.4f}", "-"]
    page = shown(RunDirectory(path))
    assert page[1].startswith("python train.py ") and "pause_at" not in page[1]
    assert page[3].startswith(f"paused at step 7 of 12 (validation loss {last['loss']:.4f}); the same command without ")
