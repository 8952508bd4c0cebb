"""Files are complete or absent, and fingerprints depend only on content."""

import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from loralab.errors import UserError
from loralab.files import (
    atomic_directory,
    atomic_path,
    fingerprint,
    locked,
    read_regular,
    remove_temporaries,
    write_json,
    write_text,
)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file"
    write_text(target, "old")
    with pytest.raises(KeyError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert target.read_text() == "old"
    assert [p.name for p in target.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["fifo", "folder"])
def test_what_is_no_regular_file_is_never_replaced(make: Callable[[Path], None], tmp_path: Path) -> None:
    """As root, a report written to /dev/null would take the place of the device."""
    make(tmp_path / "x")
    before = (tmp_path / "x").stat()
    with pytest.raises(UserError, match=r"/x: is there already and is not a regular file; name another$"):
        write_text(tmp_path / "x", "text")
    assert (tmp_path / "x").stat() == before and [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_file_is_as_readable_as_any_other(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_text(tmp_path / "ours", "x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_json_has_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"loss": float("inf")})
    assert not list(tmp_path.iterdir())


def test_a_directory_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "export"
    with pytest.raises(KeyError), atomic_directory(target) as temporary:
        (temporary / "half").touch()
        raise KeyError
    assert not list(tmp_path.iterdir())
    with atomic_directory(target) as temporary:
        (temporary / "file").write_text("x")
    assert [p.name for p in target.iterdir()] == ["file"]
    with pytest.raises(UserError, match="is there already"), atomic_directory(target):
        pass


def test_a_full_disk_is_an_os_error_also_from_safetensors(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as raised, atomic_directory(tmp_path / "new") as temporary:
            save_file({"x": np.zeros(1000)}, temporary / "x.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert raised.value.filename == str(tmp_path / "new") and not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="no error of the system"), atomic_directory(tmp_path / "new"):
        raise ValueError("no error of the system")


def test_leftovers_of_killed_writers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    for name in (".state.pt.abc.tmp", "adapter/.x.def.tmp", "adapter/kept", ".hidden"):
        (tmp_path / name).touch()
    remove_temporaries(tmp_path)
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == [".hidden", "kept"]


def test_a_fingerprint_is_of_names_and_contents_not_of_places(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        for name in ("a", "b"):
            write_text(tmp_path / folder / name, name)
    one, two = ([tmp_path / f / "b", tmp_path / f / "a"] for f in ("one", "two"))
    assert fingerprint(one) == fingerprint(reversed(two))
    assert fingerprint(one[:1]) != fingerprint(one)
    write_text(two[0], "changed")
    assert fingerprint(one) != fingerprint(two)


def test_a_cached_fingerprint_sees_a_change(tmp_path: Path) -> None:
    path, cache = tmp_path / "weights", tmp_path / "cache"
    write_text(path, "first")
    before = fingerprint([path], cache=cache)
    assert fingerprint([path], cache=cache) == before == fingerprint([path])
    write_text(path, "other")
    assert fingerprint([path], cache=cache) == fingerprint([path]) != before


def test_a_cached_fingerprint_sees_a_change_in_place_whose_time_is_put_back(tmp_path: Path) -> None:
    path, cache = tmp_path / "data.csv", tmp_path / "cache"
    write_text(path, "good")
    before, at = fingerprint([path], cache=cache), path.stat()
    time.sleep(0.02)  # the file system's clock ticks every few milliseconds
    with path.open("r+b") as stream:
        stream.write(b"evil")
    os.utime(path, ns=(at.st_atime_ns, at.st_mtime_ns))
    now = path.stat()
    assert (now.st_size, now.st_mtime_ns, now.st_ino) == (at.st_size, at.st_mtime_ns, at.st_ino)
    assert fingerprint([path], cache=cache) == fingerprint([path]) != before


def test_a_damaged_cache_of_digests_changes_no_fingerprint(tmp_path: Path) -> None:
    path, cache = tmp_path / "weights", tmp_path / "cache"
    write_text(path, "content")
    right = fingerprint([path], cache=cache)
    (entry,) = (cache / "digests").iterdir()
    whole = entry.read_bytes()
    for at in range(len(whole)):
        entry.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert fingerprint([path], cache=cache) == right
    for content in (b"", whole[:64], b"\xff" * 81, whole.replace(b" ", b"")):
        entry.write_bytes(content)
        assert fingerprint([path], cache=cache) == right
        assert entry.read_bytes() == whole, "it is made again"


def test_only_a_regular_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "file") == read_regular(tmp_path / "link") == b"content"
    for name in ("fifo", ".", "missing"):
        with pytest.raises(OSError, match=r"not a regular file|No such file"):
            read_regular(tmp_path / name)


def test_one_descriptor_at_a_time_has_the_lock(tmp_path: Path) -> None:
    def opened() -> int:
        return os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)

    first, second = opened(), opened()
    assert locked(first) == first
    assert locked(second) is None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(second)
    os.close(first)
    third = opened()
    assert locked(third) == third
    os.close(third)
