"""tests/on_pretended_gpu.py, in a process of its own: autograd counts the devices at its first backward pass."""

import subprocess
import sys
from pathlib import Path

CASES = Path(__file__).with_name("on_pretended_gpu.py")


def test_all_that_a_run_does_is_done_on_a_gpu_without_a_wait() -> None:
    command = [sys.executable, "-m", "pytest", "-n0", "-p", "no:cacheprovider", "--tb", "short", str(CASES)]
    done = subprocess.run(command, cwd=CASES.parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:]
