"""Laws of tests/processes.py: a warm process is the command that a cold one is, and dies like one."""

import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.processes import Process, Warm

SCRIPT = """\
import atexit, os, signal, sys, time
atexit.register(print, "at exit")
print(__name__, sys.argv[1:], os.getcwd(), sorted(os.environ), os.getsid(0) == os.getpid(), file=sys.stdout)
print("an error", file=sys.stderr)
if sys.argv[1] == "wait":
    sys.stdout.flush()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    time.sleep(600)
sys.exit(int(sys.argv[1]))
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


def test_arguments_folder_environment_session_and_status_are_those_of_a_cold_process(
    script: Path, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"env": {"LC_CTYPE": "C.UTF-8", "ONE": "1"}, "cwd": tmp_path, "start_new_session": True}
    command = [sys.executable, str(script), "3", "x y"]
    cold, warm = (kind(command, tmp_path / kind.__name__, **settings) for kind in (Process, Warm))
    assert sorted(warm.ends(3).splitlines()) == sorted(cold.ends(3).splitlines())
    assert warm.pid != cold.pid and warm.poll() == warm.wait() == 3


def test_what_it_says_of_errors_may_go_elsewhere(script: Path, tmp_path: Path) -> None:
    out, err = tmp_path / "out", tmp_path / "err"
    Warm([sys.executable, str(script), "0"], out, errors=err).ends(0)
    assert out.read_text().endswith("at exit\n") and err.read_text() == "an error\n"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_signal_reaches_it_and_its_end_is_told(
    number: signal.Signals, status: int, script: Path, tmp_path: Path
) -> None:
    warm = Warm([sys.executable, str(script), "wait"], tmp_path / "out", start_new_session=True)
    warm.until(lambda: "__main__ ['wait']" in warm.text())
    warm.until(lambda: number == signal.SIGKILL or handles(warm.pid, number))
    assert warm.poll() is None
    warm.send_signal(number)
    assert warm.status() == status
    assert ("at exit" in warm.text()) == (number != signal.SIGKILL)


def handles(pid: int, number: int) -> bool:
    """Whether the process has a handler of its own for this signal."""
    (caught,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt")]
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


def test_a_module_is_run_as_a_command(tmp_path: Path) -> None:
    text = Warm([sys.executable, "-m", "json.tool", "--help"], tmp_path / "out").ends()
    assert text.startswith("usage: ")
