"""Laws of run directories: identity, lock, metrics file and step counter, with real processes where they matter."""

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pytest

from loralab.errors import UserError
from loralab.store.run_directory import (
    MetricsFile,
    RunDirectory,
    Standing,
    StepCounter,
    directory_of,
    final_status,
    find,
    is_final,
    run_hash,
    standing,
    status,
)

RECORD = {"metrics": None, "started": 0.0, "ended": 1.0}


def directory(store: Path, name: str = "tiny-x-0123456789") -> RunDirectory:
    found = RunDirectory(store / "runs" / name)
    found.begin("seed: 0\n")
    return found


def test_the_hash_is_of_content_not_of_order() -> None:
    assert run_hash({"a": 1, "b": [1.5, None]}) == run_hash({"b": [1.5, None], "a": 1})
    assert run_hash({"a": 1}) != run_hash({"a": 2})
    assert len(run_hash({})) == 10


def test_a_run_is_found_under_whatever_slug_it_was_made(tmp_path: Path) -> None:
    assert directory_of(tmp_path, "new", "0123456789").path.name == "new-0123456789"
    old = directory(tmp_path, "old-0123456789")
    assert directory_of(tmp_path, "new", "0123456789").path == old.path


def test_a_run_that_goes_on_has_nothing_half_written(tmp_path: Path) -> None:
    run = directory(tmp_path)
    (run.path / ".model.abc.tmp").mkdir()
    (run.path / ".model.abc.tmp" / "model.safetensors").write_bytes(b"half")
    (run.path / ".record.json.abc.tmp").write_bytes(b"half")
    run.begin("seed: 0\n")
    assert [path.name for path in run.path.iterdir()] == ["config.yaml"]


@contextmanager
def doing(work: Callable[[RunDirectory, Event], None], run: RunDirectory) -> Iterator[int]:
    """Another process at `work`, which has set its event; gives its id, and kills it in the end."""
    context = multiprocessing.get_context("fork")
    begun = context.Event()
    process = context.Process(target=work, args=(run, begun))
    process.start()
    try:
        assert begun.wait(10)
        assert process.pid is not None
        yield process.pid
    finally:
        process.kill()
        process.join()


def _hold(run: RunDirectory, held: Event) -> None:
    with run.hold(wait=False):
        held.set()
        time.sleep(60)


def test_a_held_run_is_refused_in_one_line_and_free_once_its_holder_is_killed(tmp_path: Path) -> None:
    run = directory(tmp_path)
    with doing(_hold, run) as holder:
        with pytest.raises(UserError, match="is being trained by another process"), run.hold(wait=False):
            pass
        os.kill(holder, signal.SIGKILL)
        with run.hold(wait=True):
            pass


def _probe(run: RunDirectory, begun: Event) -> None:
    while True:
        run.held()
        begun.set()


def test_who_only_looks_whether_a_run_is_held_keeps_nobody_from_it(tmp_path: Path) -> None:
    run = directory(tmp_path)
    with doing(_probe, run):
        for _ in range(200):
            with run.hold(wait=False):
                pass


@pytest.mark.parametrize("text", ["[]", "null", "{}", '{"status": "success"}', '{"status": '])
def test_a_record_that_is_none_is_told_as_damaged(text: str, tmp_path: Path) -> None:
    run = directory(tmp_path)
    (run.path / "record.json").write_text(text)
    for look in (run.record, run.finished):
        with pytest.raises(UserError, match=r"record.json is damaged \(.*\); remove it"):
            look()


def test_only_success_and_divergence_are_final(tmp_path: Path) -> None:
    run = directory(tmp_path)
    assert run.record() is None
    for word, final in (("failed", False), ("success", True), ("diverged", True)):
        run.finish(RECORD | {"status": word})
        assert (run.finished() is not None) == final
        record: Any = run.record()
        assert record == RECORD | {"status": word}


def test_how_a_run_stands(tmp_path: Path) -> None:
    missing = RunDirectory(tmp_path / "runs" / "tiny-x-9876543210")
    assert standing(missing) == Standing("missing")
    run = directory(tmp_path)
    assert standing(run) == Standing("cut off") and status(run) == "cut off at step 0"
    with doing(_hold, run):
        assert standing(run) == Standing("running") and status(run) == "running, step 0"
        assert standing(run, probe=False) == Standing("cut off")
    for word in ("failed", final_status(diverged=True), final_status(diverged=False)):
        run.finish(RECORD | {"status": word})
        found = standing(run)
        assert found.status == status(run) == word
        assert found.record == run.record() and is_final(found.record) == (word != "failed")
    (run.path / "record.json").write_text("{")
    found = standing(run)
    assert (found.status, found.record, status(run)) == ("damaged", None, "damaged")
    assert found.error is not None and "remove it" in found.error


def test_finishing_removes_what_only_a_running_run_needs(tmp_path: Path) -> None:
    run = directory(tmp_path)
    run.checkpoint.mkdir()
    StepCounter(run).close()
    run.finish(RECORD | {"status": "failed"})
    assert run.checkpoint.exists()
    run.finish(RECORD | {"status": "success"})
    assert sorted(p.name for p in run.path.iterdir()) == ["config.yaml", "record.json"]


def test_metrics_are_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    run = directory(tmp_path)
    metrics = MetricsFile(run, size=0)
    metrics.append({"step": 1})
    size = metrics.sync()
    metrics.append({"step": 2})
    metrics.stream.write(b'{"step"')  # a line cut in half by a kill
    metrics.close()
    again = MetricsFile(run, size=size)
    again.append({"step": 2, "again": True})
    again.close()
    assert [json.loads(line) for line in metrics.path.read_text().splitlines()] == [
        {"step": 1},
        {"step": 2, "again": True},
    ]


def test_a_nan_never_reaches_the_metrics(tmp_path: Path) -> None:
    metrics = MetricsFile(directory(tmp_path), size=0)
    with pytest.raises(ValueError, match="not JSON compliant"):
        metrics.append({"loss": float("nan")})
    metrics.close()
    assert metrics.path.read_bytes() == b""


def _count(run: RunDirectory) -> None:
    counter = StepCounter(run)
    for _ in range(5):
        counter.add()
    os.kill(os.getpid(), signal.SIGKILL)


def test_executed_steps_survive_a_kill(tmp_path: Path) -> None:
    run = directory(tmp_path)
    for _ in range(2):
        process = multiprocessing.get_context("fork").Process(target=_count, args=(run,))
        process.start()
        process.join()
    counter = StepCounter(run)
    counter.close()
    assert counter.count == 10


def test_a_run_is_found_by_name_hash_or_beginning(tmp_path: Path) -> None:
    first, second = directory(tmp_path, "tiny-a-0123456789"), directory(tmp_path, "tiny-b-0199999999")
    for wanted in ("tiny-a-0123456789", "0123456789", "0123", "tiny-a", str(first.path)):
        assert find(tmp_path, wanted).path == first.path
    assert find(tmp_path, "0199").path == second.path
    for wanted in ("tiny", "01", "nothing"):
        with pytest.raises(UserError, match=r"names (no run|2 runs) in"):
            find(tmp_path, wanted)
