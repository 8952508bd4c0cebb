"""A command that waits for a training: signals reach it, and its exit status is the command's."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_reaches_the_training_which_is_waited_for(number: signal.Signals, status: int, tmp_path: Path) -> None:
    """The training notes the signal, and writes after a second."""
    child = (
        "import signal, sys, time, os, pathlib\n"
        "def noted(number, _):\n"
        "    time.sleep(.3)\n"
        "    pathlib.Path('checkpoint').touch()\n"
        "    sys.exit(128 + number)\n"
        "for number in (signal.SIGINT, signal.SIGTERM): signal.signal(number, noted)\n"
        "os.kill(os.getppid(), int(sys.argv[1]))\n"
        "time.sleep(30)\n"
    )
    code = (
        "import sys; from loralab.startup import begin; begin(); from loralab.cli.child import exit_status\n"
        "sys.exit(exit_status([sys.executable, '-c', sys.argv[1], sys.argv[2]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, child, str(int(number))],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert (done.returncode, done.stderr) == (status, b"")
    assert (tmp_path / "checkpoint").is_file()
