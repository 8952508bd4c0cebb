"""The notebook of the documentation: its cells run one after the other, and what they print is plain lines."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest

from tests.small_runs import CONF

NOTEBOOK: dict[str, Any] = json.loads((CONF.parent / "docs" / "notebook.ipynb").read_text(encoding="utf-8"))
CELLS = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def test_it_is_stored_without_outputs() -> None:
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in CELLS)


def test_progress_bars_that_are_not_there_are_no_warning_in_a_notebook() -> None:
    code = "from loralab import train; import warnings; warnings.warn('IProgress not found. Please update jupyter')"
    environment = {**os.environ, "PYTHONPATH": str(CONF.parent / "src")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_its_cells_train_sweep_draw_and_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LORALAB_STORE", "outputs")
    monkeypatch.setenv("PYTHONPATH", str(CONF.parent / "src"))
    plt.switch_backend("Agg")
    names: dict[str, Any] = {}
    for cell in CELLS:
        exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    plt.close("all")
    assert names["run"].status == "success" and names["again"].path == names["run"].path
    assert names["found"].runs["status"].tolist() == ["success"] * 2
    assert names["losses"].notna().sum().to_dict() == {"train": 10, "validation": 5}
    printed = "".join(capsys.readouterr())
    assert "step 30/30  validation  accuracy" in printed and "2 runs: 2 success" in printed
    assert not set("\r\x1b\b") & set(printed), "a notebook shows no control characters"
