"""Files of torch.save with the SHA-256 of their bytes, as the comment at the end of their zip archive.

torch.load reads such a file like any other. It checks no checksum itself: a flipped bit would be another weight.
"""

import hashlib
import os
import struct
import zipfile
from pathlib import Path
from typing import BinaryIO

__all__ = ["refuse_damaged", "seal"]

MARK = b"sha256:"
COMMENT = len(MARK) + 64  # bytes
LENGTH = struct.Struct("<H")  # of the comment; a zip archive ends with it, and with the comment
CHUNK = 2**20  # bytes


def seal(path: Path) -> None:
    """Adds the digest to a file that torch.save has just written."""
    with path.open("r+b") as stream:
        end = stream.seek(-LENGTH.size, os.SEEK_END)
        if stream.read() != LENGTH.pack(0):
            raise RuntimeError("torch.save no longer writes a zip archive without a comment")
        digest = _digest(stream, end)
        stream.seek(end)
        stream.write(LENGTH.pack(COMMENT) + MARK + digest)


def refuse_damaged(path: Path) -> None:
    """Raises ValueError unless the file is as it was written; one without digest (older) is checked by its CRCs."""
    with path.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        end = size - LENGTH.size - COMMENT
        stream.seek(max(0, end))
        tail = stream.read()
        if tail.startswith(LENGTH.pack(COMMENT) + MARK):
            if _digest(stream, end) != tail[-64:]:
                raise ValueError("its bytes have changed since it was written")
            return
    try:
        with zipfile.ZipFile(path) as archive:
            changed = archive.testzip()
    except Exception as error:  # zipfile raises a dozen types for damaged archives
        raise ValueError(str(error) or "it is no archive") from error
    if changed is not None:
        raise ValueError(f"{changed} has changed since it was written")


def _digest(stream: BinaryIO, end: int) -> bytes:
    """SHA-256, as 64 hex digits, of the first `end` bytes."""
    digest = hashlib.sha256()
    stream.seek(0)
    while end > 0:
        block = stream.read(min(CHUNK, end))
        if not block:
            break
        digest.update(block)
        end -= len(block)
    return digest.hexdigest().encode()
