"""Without a writable home directory there is no warning, and no file is left behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from loralab.compat.home import use_temporary_caches

SETTINGS = ("MPLCONFIGDIR", "WANDB_CACHE_DIR")


def test_a_home_that_takes_files_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (*SETTINGS, "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    use_temporary_caches()
    assert not set(SETTINGS) & set(os.environ)


def test_without_one_matplotlib_says_nothing_and_the_folder_is_gone_in_the_end(tmp_path: Path) -> None:
    """A file is in place of the home directory, which also blocks root."""
    (tmp_path / "home").touch()
    code = (
        "from loralab.compat.home import use_temporary_caches; use_temporary_caches()\n"
        "import matplotlib.pyplot, os; print(os.environ['MPLCONFIGDIR'])"
    )
    kept = {key: value for key, value in os.environ.items() if key not in (*SETTINGS, "XDG_CONFIG_HOME")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**kept, "HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == "" and done.stdout.strip().endswith("/matplotlib")
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
