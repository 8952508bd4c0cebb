"""The error classes of loralab, and the system's errors in one line. Any module may import them."""

import errno
import os

__all__ = ["RunsFailed", "UserError", "explain_os_error"]

_ROOM = "finished work is kept: fix this, then run the same command again"
# What a person can do; an error of another number has the system's text alone.
_FIXES = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EROFS: _ROOM,
    errno.EACCES: _ROOM,
    errno.EPERM: _ROOM,
    errno.EIO: f"the disk or its connection fails; {_ROOM}",
    errno.EFBIG: "the file system, or `ulimit -f`, takes no file as large",
    errno.EMFILE: "allow more, as with `ulimit -n 4096`",
    errno.ENFILE: "this machine has too many files open: end other programs",
    errno.ENAMETOOLONG: "take a shorter name",
    errno.ENOTDIR: "a part of this path is a file; name another",
    errno.EISDIR: "name a file",
    errno.EEXIST: "move it away, or name another",
    errno.ELOOP: "links there lead back to themselves; name another",
    errno.ENOENT: "name one that is there",
}
# Errors of the system, not of the program, even where it names no file.
_OF_THE_SYSTEM = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM), "the store"),
    **dict.fromkeys((errno.EIO, errno.EFBIG), "the store"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "files"),
}


class UserError(ValueError):
    """A user's mistake, in one line: the dotted key, its value, what is allowed and the nearest fix.

    The command line prints the line, without a traceback, and exits with status 2.
    """


class RunsFailed(Exception):  # noqa: N818  # named for the event
    """Some runs of a sweep failed and have been printed; the command line prints nothing more and exits with 1."""


def explain_os_error(error: BaseException) -> str | None:
    """The file, the system's words, and what to do; None for other errors, and for what is a bug: it names no file."""
    if not isinstance(error, OSError) or error.errno is None or error.strerror is None:
        return None
    file = error.filename
    if isinstance(file, str | bytes | os.PathLike) and os.fspath(file):
        what = os.fsdecode(file)
    elif error.errno in _OF_THE_SYSTEM:
        what = _OF_THE_SYSTEM[error.errno]
    else:
        return None
    return "; ".join(filter(None, (f"{what}: {error.strerror}", _FIXES.get(error.errno))))
