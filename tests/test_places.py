"""Files of the current folder are found first, and results are written there; a checkout is one folder throughout."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from loralab import places
from tests.small_runs import CONF

ROOT = CONF.parent


def test_a_checkout_is_where_its_own_processes_write() -> None:
    assert places.OURS == ROOT and places.HERE in (ROOT, Path.cwd())


def test_a_file_of_the_current_folder_is_found_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, ours, other = (tmp_path / name for name in ("here", "ours", "other"))
    monkeypatch.setattr(places, "HERE", here)
    monkeypatch.setattr(places, "OURS", ours)
    wanted = here / "analysis" / "first.py"
    assert places.found(wanted) == ours / "analysis" / "first.py"
    wanted.parent.mkdir(parents=True)
    wanted.touch()
    assert places.found(wanted) == wanted
    assert places.found(other / "first.py") == other / "first.py"  # of a store: never loralab's


SAYS = "from loralab import places; print(places.OURS, places.HERE, sep='\\n')"


def said(package: Path, where: Path) -> list[str]:
    """OURS and HERE of a process that is started in a folder, with the package's parent on its path."""
    code = f"import sys; sys.path.insert(0, {str(package.parent)!r}); {SAYS}"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], cwd=where, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize("shipped", [False, True])
def test_here_is_the_current_folder_and_inside_a_checkout_the_checkout(shipped: bool, tmp_path: Path) -> None:
    package, outside = tmp_path / "root" / "src" / "loralab", tmp_path / "mine"
    outside.mkdir()
    package.mkdir(parents=True)
    for name in ("__init__.py", "places.py"):
        shutil.copy(ROOT / "src" / "loralab" / name, package)
    root = tmp_path / "root"
    if shipped:  # the layout of a wheel
        (package / "shipped").mkdir()
        root = package / "shipped"
    assert said(package, outside) == [str(root), str(outside)]
    assert said(package, package) == [str(root), str(package if shipped else root)]
    if shipped:
        assert said(package, root) == [str(root), str(root)], "its files are read, and nothing is written elsewhere"
    assert said(package, tmp_path / "root" / "src") == [str(root), str(tmp_path / "root" / "src" if shipped else root)]


def test_a_folder_that_was_removed_is_no_traceback_of_the_import(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    source = str(ROOT / "src")
    code = f"import os, sys; os.chdir({str(gone)!r}); os.rmdir({str(gone)!r}); sys.path.insert(0, {source!r}); {SAYS}"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [str(ROOT), "."]
