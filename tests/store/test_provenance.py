"""Provenance: the checkout's commit, its diff stored once, and the versions of what is installed."""

import subprocess
from importlib import metadata
from pathlib import Path

from loralab.store import provenance


def test_commit_and_diff_are_the_checkouts(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    found = provenance.code_version(tmp_path)
    head = subprocess.run(["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    diff = subprocess.run(["git", "-C", root, "diff", "HEAD", "--binary"], capture_output=True).stdout
    assert found["commit"] == (head or None)
    stored = list((tmp_path / "diffs").glob("*.diff"))
    assert [p.read_bytes() for p in stored] == ([diff] if diff else [])
    assert found["diff"] == (stored[0].stem if stored else None)


def test_versions_are_those_installed() -> None:
    assert provenance.versions()["torch"] == metadata.version("torch")
    extra = {each.name: each.version for each in metadata.distributions() if each.name in provenance.OPTIONAL}
    assert {name: provenance.versions().get(name) for name in provenance.OPTIONAL if name in extra} == extra
