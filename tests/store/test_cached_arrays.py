"""A cache gives back what was written, or nothing: whatever bit is flipped."""

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from loralab.store.cached_arrays import read_arrays, write_arrays

ARRAYS: dict[str, npt.NDArray[Any]] = {
    "ids": np.arange(500, dtype=np.int32), "offsets": np.array([0, 200, 500]), "none": np.empty(0, dtype=np.int8),
}  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "tokens" / "key.npz"
    write_arrays(found, ARRAYS)
    return found


def same(path: Path) -> bool:
    found = read_arrays(path, list(ARRAYS))
    assert found is None or all(
        found[name].dtype == array.dtype and np.array_equal(found[name], array) for name, array in ARRAYS.items()
    )
    return found is not None


def test_what_was_written_is_read(path: Path) -> None:
    assert same(path)


def test_no_flipped_bit_gives_other_arrays(path: Path) -> None:
    whole, draw, read = path.read_bytes(), random.Random(0), 0
    for _ in range(300):
        at = draw.randrange(len(whole))
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << draw.randrange(8))]) + whole[at + 1 :])
        read += same(path)
    assert read < 60  # of the bits that mean nothing, such as a time


def test_a_part_another_key_or_another_kind_of_file_is_nothing(path: Path, tmp_path: Path) -> None:
    whole = path.read_bytes()
    other = path.rename(path.with_name("other.npz"))
    assert not same(other), "it was written under another key"
    assert not same(path)
    for content in (b"", b"text", whole[:100], whole[:-30]):
        path.write_bytes(content)
        assert not same(path)
    np.savez(path, allow_pickle=False, **ARRAYS)
    assert not same(path), "it has no digest"
    path.unlink()
    os.mkfifo(path)
    assert not same(path)


def test_where_nothing_can_be_written_nothing_is_cached(tmp_path: Path) -> None:
    (tmp_path / "tokens").touch()
    write_arrays(tmp_path / "tokens" / "key.npz", ARRAYS)
