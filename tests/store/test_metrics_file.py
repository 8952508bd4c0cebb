"""metrics.jsonl is appended to as long as it is this run's file, and read as far as it is whole."""

import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from loralab.errors import UserError
from loralab.store.metrics_file import MetricsFile, StepCounter, last_logged
from loralab.store.run_lock import LostRunError

LINE = '{"step": 4, "split": "train", "values": {"loss": 1.0}, "seconds": 0.5}\n'


def test_metrics_are_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path, size=0)
    metrics.append({"step": 1})
    size = metrics.sync()
    metrics.append({"step": 2})
    metrics.stream.write(b'{"step"')  # a line cut in half by a kill
    metrics.close()
    again = MetricsFile(tmp_path, size=size)
    again.append({"step": 2, "again": True})
    again.close()
    assert [json.loads(line) for line in metrics.path.read_text().splitlines()] == [
        {"step": 1},
        {"step": 2, "again": True},
    ]


def test_a_nan_never_reaches_the_metrics(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path, size=0)
    with pytest.raises(ValueError, match="not JSON compliant"):
        metrics.append({"loss": float("nan")})
    metrics.close()
    assert metrics.path.read_bytes() == b""


def _count(directory: Path) -> None:
    counter = StepCounter(directory)
    for _ in range(5):
        counter.add()
    os.kill(os.getpid(), signal.SIGKILL)


def test_executed_steps_survive_a_kill(tmp_path: Path) -> None:
    for _ in range(2):
        process = multiprocessing.get_context("fork").Process(target=_count, args=(tmp_path,))
        process.start()
        process.join()
    counter = StepCounter(tmp_path)
    counter.close()
    assert counter.count == 10


def _replace(path: Path) -> None:
    path.rename(path.with_name("old"))
    path.touch()


CHANGES: dict[str, Callable[[Path], object]] = {
    "removed": Path.unlink,
    "replaced": _replace,
    "emptied": lambda path: os.truncate(path, 0),
    "appended to": lambda path: path.write_text(path.read_text() + LINE),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_nothing_is_added_to_a_file_that_another_has_changed(tmp_path: Path, change: Callable[[Path], object]) -> None:
    metrics = MetricsFile(tmp_path, size=0)
    metrics.append({"step": 1})
    change(metrics.path)
    for write in (lambda: metrics.append({"step": 2}), metrics.sync):
        with pytest.raises(LostRunError, match=r"metrics\.jsonl was removed or changed while its run trained"):
            write()
    metrics.close()


def test_a_journal_that_is_no_file_is_one_line_and_waits_for_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "metrics.jsonl")
    with pytest.raises(UserError, match="is not a file"):
        MetricsFile(tmp_path, size=0)
    with pytest.raises(UserError, match="is not a regular file"):
        last_logged(tmp_path)


@pytest.mark.parametrize("content", [b"abc", b"\xff\xfe", b"1.5"])
def test_a_damaged_count_of_steps_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "executed").write_bytes(content)
    with pytest.raises(UserError, match="executed is damaged"):
        StepCounter(tmp_path)


def test_the_last_line_is_the_last_whole_one_of_its_split(tmp_path: Path) -> None:
    assert last_logged(tmp_path) is None
    path = tmp_path / "metrics.jsonl"
    other = LINE.replace("train", "validation").replace("4", "5")
    path.write_text(LINE + other * 100 + '{"step": 9')
    assert (last_logged(tmp_path) or {})["step"] == 5
    assert (last_logged(tmp_path, "train") or {})["step"] == 4
    assert last_logged(tmp_path, "probe") is None


@pytest.mark.parametrize(
    "text", [b"\xff\xfe\n", b"3\n", b"[]\n", b"{}\n", b"\n", b"[" * 100_000 + b"\n",
             LINE.replace("4", '"4"').encode(), LINE.replace("1.0", '"low"').encode()],
)  # fmt: skip
def test_a_line_that_is_none_is_one_line(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(LINE.encode() + text)
    with pytest.raises(UserError, match=r"metrics\.jsonl, near its end, is damaged \(.*\); remove "):
        last_logged(tmp_path)
