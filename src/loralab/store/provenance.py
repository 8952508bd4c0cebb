"""Provenance of a record: the code's commit and uncommitted diff, and the versions of its dependencies."""

import functools
import hashlib
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from loralab.files import fingerprint, write_bytes
from loralab.places import CODE

__all__ = ["code_fingerprint", "code_version", "commit", "versions"]

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
# What some runs compute with, recorded where it is installed.
OPTIONAL = ("bitsandbytes", "lion-pytorch")


@functools.cache
def code_version(store: Path) -> dict[str, str | None]:
    """{commit, diff}: the commit of loralab's checkout and the hash of its uncommitted diff, None without changes.

    The diff is stored once, as <store>/diffs/<hash>.diff. Outside a git checkout both are None. Cached per process.
    """
    at, diff = _head(), _diff()
    if at is None or not diff:
        return {"commit": at, "diff": None}
    name = hashlib.sha256(diff).hexdigest()[:16]
    target = store / "diffs" / f"{name}.diff"
    if not target.exists():
        write_bytes(target, diff)
    return {"commit": at, "diff": name}


def commit() -> str | None:
    """The commit in words, `with changes` if the checkout has any; None outside a git checkout."""
    at = _head()
    return None if at is None else f"commit {at[:10]}{' with changes' if _diff() else ''}"


@functools.cache
def code_fingerprint() -> str:
    """SHA-256 (first 16 hex digits) over the package's Python files; a checkout's is that of its wheel."""
    return fingerprint(sorted(path for path in CODE.rglob("*.py") if path.relative_to(CODE).parts[0] != "shipped"))


@functools.cache
def versions() -> dict[str, str]:
    """Package -> version, including Python and the platform."""
    there = {each.name for package in OPTIONAL for each in metadata.distributions(name=package)}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{p: metadata.version(p) for p in (*PACKAGES, *(p for p in OPTIONAL if p in there))},
    }


def _head() -> str | None:
    """The commit of the checkout that has this code; None outside one."""
    inside, head = _git("ls-files", "--error-unmatch", "runs/run.py"), _git("rev-parse", "HEAD")
    return None if inside is None or head is None else head.decode().strip()


def _diff() -> bytes | None:
    return _git("diff", "HEAD", "--binary")


def _git(*arguments: str) -> bytes | None:
    command: list[Any] = ["git", "-C", CODE, *arguments]
    try:
        return subprocess.run(command, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
