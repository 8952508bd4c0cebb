"""Trackio's storage has the functions that are used, and gives what a run has logged."""

from importlib.util import find_spec
from pathlib import Path

import pytest


@pytest.mark.skipif(find_spec("trackio") is None, reason="trackio is not installed")
@pytest.mark.filterwarnings("ignore")
def test_what_a_run_has_logged_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    import trackio

    from loralab.compat.trackio import folder, logged

    run = trackio.init(project="read", name="run", auto_log_cpu=False, auto_log_gpu=False, embed=False)
    assert folder().is_dir() and logged(run) == set()
    run.log({"loss": 1.0, "lr": 2.0}, step=3)
    trackio.finish()
    assert logged(run) == {("loss", 3), ("lr", 3)}
