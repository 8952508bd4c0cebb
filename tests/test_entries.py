"""The commands that messages name are those that run where the message is read."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from loralab import entries, places
from tests.small_runs import CONF


def test_messages_name_a_file_only_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "HERE", places.OURS)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    assert entries.typed("train") == "python train.py" and (places.OURS / "train.py").is_file()
    assert entries.typed("pretrain") == "python pretrain.py" and (places.OURS / "pretrain.py").is_file()
    for program in ("/usr/bin/loralab", "/some/lib/loralab/__main__.py"):  # python -m loralab
        monkeypatch.setattr(sys, "argv", [program, "runs"])
        assert entries.typed("train") == "loralab train"
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.setattr(places, "HERE", tmp_path)
    assert entries.typed("train") == "loralab train"


def test_a_process_of_its_own_imports_nothing_from_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')\n")
    environment = {**os.environ, "PYTHONPATH": str(CONF.parent / "src")}
    command = [*entries.process("train"), "model=tny"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "did you mean tiny?" in done.stderr and done.stderr.count("\n") == 1
