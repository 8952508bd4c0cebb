"""Provenance of a record: the code's commit and uncommitted diff, and the versions of its dependencies."""

import functools
import hashlib
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from loralab.files import write_bytes

__all__ = ["code_version", "versions"]

PACKAGES = (
    "loralab",
    "torch",
    "transformers",
    "tokenizers",
    "datasets",
    "numpy",
    "hydra-core",
    "omegaconf",
    "safetensors",
)


@functools.cache
def code_version(store: Path) -> dict[str, str | None]:
    """{commit, diff}: the commit of loralab's checkout and the hash of its uncommitted diff, None without changes.

    The diff is stored once, as <store>/diffs/<hash>.diff. Outside a git checkout both are None. Cached per process.
    """
    source = Path(__file__).resolve().parents[1]
    inside = _git(source, "ls-files", "--error-unmatch", "runs/run.py")
    commit = _git(source, "rev-parse", "HEAD")
    if inside is None or commit is None:
        return {"commit": None, "diff": None}
    diff = _git(source, "diff", "HEAD", "--binary")
    if not diff:
        return {"commit": commit.decode().strip(), "diff": None}
    name = hashlib.sha256(diff).hexdigest()[:16]
    target = store / "diffs" / f"{name}.diff"
    if not target.exists():
        write_bytes(target, diff)
    return {"commit": commit.decode().strip(), "diff": name}


@functools.cache
def versions() -> dict[str, str]:
    """Package -> version, including Python and the platform."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{p: metadata.version(p) for p in PACKAGES},
    }


def _git(directory: Path, *arguments: str) -> bytes | None:
    command: list[Any] = ["git", "-C", directory, *arguments]
    try:
        return subprocess.run(command, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
