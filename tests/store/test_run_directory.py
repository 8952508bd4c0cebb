"""Laws of run directories: identity, lock, metrics file and step counter, with real processes where they matter."""

import json
import multiprocessing
import os
import pickle
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pytest

from loralab.errors import UserError
from loralab.store.metrics_file import StepCounter
from loralab.store.run_directory import (
    RunDirectory,
    Standing,
    directory_of,
    final_status,
    find,
    is_final,
    run_hash,
    standing,
    status,
)
from loralab.store.run_lock import LostRunError
from tests.store.records import record


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
        run.finish(record(word))
        assert (run.finished() is not None) == final
        found: Any = run.record()
        assert found == record(word)


def test_how_a_run_stands(tmp_path: Path) -> None:
    missing = RunDirectory(tmp_path / "runs" / "tiny-x-9876543210")
    assert standing(missing) == Standing("missing")
    run = directory(tmp_path)
    assert standing(run) == Standing("cut off") and status(run) == "cut off at step 0"
    with doing(_hold, run):
        assert standing(run) == Standing("running") and status(run) == "running, step 0"
    for word in ("failed", final_status(diverged=True), final_status(diverged=False)):
        run.finish(record(word))
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
    StepCounter(run.path).close()
    run.finish(record("failed"))
    assert run.checkpoint.exists()
    run.finish(record("success"))
    assert sorted(p.name for p in run.path.iterdir()) == ["config.yaml", "record.json"]


def test_a_run_is_found_by_name_hash_or_beginning(tmp_path: Path) -> None:
    first, second = directory(tmp_path, "tiny-a-0123456789"), directory(tmp_path, "tiny-b-0199999999")
    for wanted in ("tiny-a-0123456789", "0123456789", "0123", "tiny-a", str(first.path)):
        assert find(tmp_path, wanted).path == first.path
    assert find(tmp_path, "0199").path == second.path
    for wanted in ("tiny", "01", "nothing"):
        with pytest.raises(UserError, match=r"names (no run|2 runs) in"):
            find(tmp_path, wanted)


def test_a_name_of_several_runs_or_of_none_is_one_line_that_names_the_latest_or_the_nearest(tmp_path: Path) -> None:
    runs = [directory(tmp_path, f"tiny-a-{number:010d}") for number in range(5)]
    for at, run in enumerate(runs):
        os.utime(run.path, (at, at))
    with pytest.raises(UserError) as several:
        find(tmp_path, "tiny-a")
    assert str(several.value) == (
        f"'tiny-a' names 5 runs in {tmp_path / 'runs'}; name one, as the latest: tiny-a-0000000004, tiny-a-0000000003, "
        "tiny-a-0000000002 and 2 more; `loralab runs` tells them apart"
    )
    with pytest.raises(UserError, match=r"'tini-a-0000000001' names no run in .*; did you mean tiny-a-0000000001\? `"):
        find(tmp_path, "tini-a-0000000001")


def test_a_run_that_is_done_has_no_checkpoint_left_by_a_kill(tmp_path: Path) -> None:
    run = directory(tmp_path)
    run.checkpoint.mkdir()
    (run.path / "executed").touch()
    run.tidy()
    assert run.checkpoint.exists(), "it is not done"
    (run.path / "record.json").write_text(json.dumps(record("success")))
    with doing(_hold, run):
        run.tidy()
        assert run.checkpoint.exists(), "another process is at it"
    run.tidy()
    assert sorted(path.name for path in run.path.iterdir()) == ["config.yaml", "record.json"]


def test_a_directory_that_is_gone_is_neither_written_to_nor_made_again(tmp_path: Path) -> None:
    run = directory(tmp_path)
    with run.hold(wait=False):
        run.begin("seed: 0\n")
        shutil.rmtree(tmp_path)
        for write in (run.check, lambda: run.begin("seed: 0\n"), lambda: run.finish(record("failed"))):
            with pytest.raises(LostRunError, match="was removed or replaced"):
                write()
    assert not tmp_path.exists()


@pytest.mark.parametrize("lose", [lambda path: shutil.rmtree(path), lambda path: path.rename(path.parent / "moved")])
def test_a_directory_that_goes_while_its_record_is_written_gets_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lose: Callable[[Path], object]
) -> None:
    run, made = directory(tmp_path), tempfile.mkstemp
    with run.hold(wait=False):
        run.begin("seed: 0\n")
        (run.path / "metrics.jsonl").touch()

        def mkstemp(**options: Any) -> Any:
            found = made(**options)
            lose(run.path)
            run.path.mkdir()
            return found

        monkeypatch.setattr(tempfile, "mkstemp", mkstemp)
        with pytest.raises((LostRunError, FileNotFoundError)):
            run.finish(record("success"))
    assert not list(tmp_path.rglob("record.json"))


def test_a_run_and_its_copy_in_another_process_are_equal_and_only_one_is_held(tmp_path: Path) -> None:
    run = directory(tmp_path)
    with run.hold(wait=False):
        run.begin("seed: 0\n")
        copy = pickle.loads(pickle.dumps(run))
        shutil.rmtree(run.path)
        copy.check()
    assert copy == run


def test_a_run_whose_files_are_damaged_says_so(tmp_path: Path) -> None:
    run = directory(tmp_path)
    (run.path / "metrics.jsonl").write_bytes(b"\xff\xfe\n")
    now = standing(run)
    assert now.status == status(run) == "damaged" and now.error is not None and "metrics.jsonl" in now.error


def test_a_run_that_has_ended_loses_all_but_its_labels_and_another_loses_nothing(tmp_path: Path) -> None:
    run = directory(tmp_path)
    (run.path / "checkpoint").mkdir(exist_ok=True)
    (run.path / "labels.json").write_text("{}")
    before = sorted(run.path.iterdir())
    run.remove_ended()
    assert sorted(run.path.iterdir()) == before, "it can go on"
    (run.path / "record.json").write_text("damaged")
    run.remove_ended()
    assert [path.name for path in run.path.iterdir()] == ["labels.json"]


def test_a_run_in_progress_and_a_link_are_not_removed(tmp_path: Path) -> None:
    run, link = directory(tmp_path), RunDirectory(tmp_path / "runs" / "link-fedcba9876")
    link.path.symlink_to(run.path)
    with pytest.raises(UserError, match="is a link to a run elsewhere"):
        link.remove()
    with run.hold(wait=False), pytest.raises(UserError, match="is in progress"):
        RunDirectory(run.path).remove()
    run.remove()
    assert not run.path.exists()
