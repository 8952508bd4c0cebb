"""Each hostile data file gives all of its rows, or one line: no other error, no hang, nothing written elsewhere."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loralab.backbones import tiny
from loralab.errors import UserError
from loralab.runs.build import read_task
from loralab.runs.plan import plan
from loralab.tasks import tokenise
from tests.small_runs import config
from tests.tasks.hostile_files import HEADER, Hostile, hostile_files

FILES = hostile_files()
SECONDS = 20


@pytest.fixture(autouse=True)
def _in_time() -> Iterator[None]:
    """A test that blocks, as a FIFO's reader does, fails."""

    def late(*_: Any) -> None:
        raise AssertionError(f"not done in {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def _outcome(file: Hostile, tmp_path: Path) -> int | str:
    """The number of rows, or the one line."""
    folder, store = tmp_path / "data", tmp_path / "store"
    folder.mkdir()
    store.mkdir()
    path = folder / f"mine{file.suffix}"
    file.make(path)
    there = sorted(tmp_path.iterdir()), sorted(folder.iterdir())
    text, label = HEADER
    own = ["task=local", f"task.files.train='{path}'", f"task.text=[{text}]", f"task.label={label}"]
    try:
        planned = plan(config(store, *own, "task.train_rows=null", "task.eval_rows=null", *file.more))
        raw = read_task(planned)
        splits = tokenise(raw, tiny.make_tokenizer(), tokenizer_identity="tiny", max_length=32, cache=store / "cache")
    except UserError as error:
        line = str(error)
        assert line.isprintable() and len(line) < 2_000, line[:500]
        return line
    finally:
        assert there == (sorted(tmp_path.iterdir()), sorted(folder.iterdir()))
    assert all(len(splits[part]) == len(rows) for part, rows in raw.splits.items())
    return sum(map(len, splits.values()))


def _check(file: Hostile, tmp_path: Path) -> None:
    found = _outcome(file, tmp_path)
    if isinstance(found, str):
        assert not file.exact, found
    else:
        assert file.rows in (None, found)


def test_there_are_270_of_many_kinds() -> None:
    names = [(file.name, file.suffix) for file in FILES]
    assert len(set(names)) == len(names) >= 270


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.name}{file.suffix}")
def test_a_hostile_file_is_read_whole_or_refused_in_one_line(file: Hostile, tmp_path: Path) -> None:
    _check(file, tmp_path)


@pytest.mark.parametrize("file", FILES[::30], ids=lambda file: f"{file.name}{file.suffix}")
def test_some_of_them(file: Hostile, tmp_path: Path) -> None:
    _check(file, tmp_path)
