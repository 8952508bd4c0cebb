"""Arrays in a cache: a .npz file with a digest of its name and content. A damaged file counts as missing."""

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loralab.files import atomic_path

__all__ = ["read_arrays", "write_arrays"]

Arrays = Mapping[str, npt.NDArray[Any]]
DIGEST = "digest"


def read_arrays(path: Path, names: Sequence[str]) -> dict[str, npt.NDArray[Any]] | None:
    """The arrays of these names as `write_arrays` wrote them to this path; None for anything else."""
    if not path.is_file():
        return None
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in names}
            whole = stored[DIGEST].tobytes() == _digest(path, arrays)
    except Exception:  # numpy and zipfile raise a dozen types for damaged files; the arrays are then made again
        return None
    return arrays if whole else None


def write_arrays(path: Path, arrays: Arrays) -> None:
    """Writes the arrays, unless the place cannot be written to: then nothing is cached."""
    digest = np.frombuffer(_digest(path, arrays), dtype=np.uint8)
    with contextlib.suppress(OSError), atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays, **{DIGEST: digest})


def _digest(path: Path, arrays: Arrays) -> bytes:
    """SHA-256 of the file's name, which is the key, and of each array's name, type, shape and bytes."""
    digest = hashlib.sha256(path.name.encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"\0{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.digest()
