"""Errors of the system in one line: which file, what the system says, what to do."""

import errno
import os
from pathlib import Path

import pytest

from loralab.errors import explain_os_error


@pytest.mark.parametrize(
    ("number", "fix"),
    [
        (errno.ENOSPC, "run the same command again"),
        (errno.EDQUOT, "run the same command again"),
        (errno.EROFS, "run the same command again"),
        (errno.EACCES, "run the same command again"),
        (errno.EIO, "the disk or its connection fails"),
        (errno.ENAMETOOLONG, "take a shorter name"),
        (errno.ENOTDIR, "a part of this path is a file"),
        (errno.EISDIR, "name a file"),
        (errno.EEXIST, "name another"),
        (errno.ELOOP, "lead back to themselves"),
        (errno.EFBIG, "takes no file as large"),
        (errno.EMFILE, "ulimit -n"),
        (errno.ENOENT, "name one that is there"),
        (errno.ESTALE, os.strerror(errno.ESTALE)),
    ],
)
def test_an_error_about_a_file_names_it_and_the_fix(number: int, fix: str) -> None:
    for name in ("a/file", b"a/file", Path("a/file")):
        line = explain_os_error(OSError(number, os.strerror(number), name))
        assert line is not None and line.startswith(f"a/file: {os.strerror(number)}") and fix in line


def test_a_full_disk_needs_no_file_and_a_bug_has_none() -> None:
    said = explain_os_error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert said is not None and said.startswith("the store: No space left on device; finished work is kept")
    for bug in (
        OSError(errno.EBADF, os.strerror(errno.EBADF)),
        OSError(errno.ENOENT, os.strerror(errno.ENOENT)),
        ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)),
        ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)),
        OSError("no number"),
        ValueError("none of the system's"),
    ):
        assert explain_os_error(bug) is None
