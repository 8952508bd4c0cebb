"""Standard output and error, of which no fault ends a run: closed, full, no longer read, or in ASCII.

What cannot be encoded is spelt (λ: lambda) or escaped. What cannot be written is dropped, and `finish` says so once.
"""

import codecs
import errno
import io
import os
import sys
import time
from typing import Any

__all__ = ["finish", "is_unread", "prepare"]

# The name under which Python's codecs know `_spelt`.
SPELL = "loralab.spell"
_SPELLINGS = {
    "λ": "lambda", "Δ": "D", "ε": "epsilon", "δ": "delta", "±": "+-", "√": "sqrt ", "²": "^2", "ᵀ": "^T", "·": ".",
    "\N{MULTIPLICATION SIGN}": "x", "—": "-", "✓": "+", "✗": "X",
}  # fmt: skip
# Seconds between two tries to write to a stream that does not block and is full.
_PAUSE = 0.01


class _Noting(io.RawIOBase):
    """A raw stream that drops what cannot be written, and notes the first reason."""

    def __init__(self, raw: Any) -> None:
        self.under = raw
        self.name = raw.name
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return int(self.under.fileno())

    def isatty(self) -> bool:
        return bool(self.under.isatty())

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        try:
            while left:  # without a buffer (python -u) the rest must be written here
                count = self.under.write(left)
                if count is None:  # another process has made the terminal non-blocking
                    time.sleep(_PAUSE)
                else:
                    left = left[count:]
        except OSError as error:
            self.error = self.error or error
        return size


def prepare() -> None:
    """Prepares this process's streams, once; call it before anything is printed.

    A stream that Python did not open here, as pytest's, is left alone.
    """
    codecs.register_error(SPELL, _spelt)
    for number in range(3):  # all of them before the first file is opened, which would take the place of one
        if not _is_open(number):
            _open_null(number)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123  # open as long as the process
            setattr(sys, f"__{name}__", stream)
        if stream is getattr(sys, f"__{name}__") and isinstance(stream, io.TextIOWrapper):
            setattr(sys, name, _noting(stream))


def finish(status: int, *, unread: int) -> int:
    """Flushes the streams and gives the exit status of a command that would end with `status`.

    unread: the status of a success whose output is no longer read, as in `train.py | head -1`. An output that could not
    be written for another reason is one line on standard error, and 2 instead of 0.
    """
    error = _flushed(sys.stdout)
    if error is not None and error.errno != errno.EPIPE:
        print(
            f"error: standard output: {error.strerror}; a run that was trained is kept, and the same command prints it",
            file=sys.stderr,
        )
    _flushed(sys.stderr)
    if error is None or status:
        return status
    return unread if error.errno == errno.EPIPE else 2


def is_unread() -> bool:
    """Whether standard output cannot be written any more, as in `loralab predict ... | head`: what follows is lost."""
    return _flushed(sys.stdout) is not None


def _flushed(stream: Any) -> OSError | None:
    """Why a part of this stream could not be written; None if all of it was."""
    stream.flush()
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)
    return raw.error if isinstance(raw, _Noting) else None


def _noting(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    """A stream to the same file, with the same encoding and buffering."""
    stream.flush()
    buffer: Any = stream.buffer
    raw = getattr(buffer, "raw", None)  # python -u has no buffer
    binary: Any = _Noting(buffer) if raw is None else io.BufferedWriter(_Noting(raw))
    return io.TextIOWrapper(
        binary,
        encoding=stream.encoding,
        errors=SPELL,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _spelt(error: UnicodeError) -> tuple[str, int]:
    """Python calls it for what an encoding does not have; undecodable bytes of a file's name become their numbers."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_SPELLINGS.get(each) or _escaped(each) for each in text), error.end


def _escaped(character: str) -> str:
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:
        return f"\\x{number - 0xDC00:02x}"
    return character.encode("ascii", "backslashreplace").decode()


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _open_null(number: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null != number:
        os.dup2(null, number)
        os.close(null)
    else:
        os.set_inheritable(number, True)
