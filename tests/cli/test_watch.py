"""`loralab watch`: the address of the page, mistakes in one line, and Ctrl-C in one line."""

import os
import re
import signal
import sys
import urllib.request
from pathlib import Path

import pytest

from loralab.cli.main import main
from loralab.inspect.watch_server import WatchServer
from tests.live_sweeps import LiveSweep
from tests.processes import Process
from tests.small_runs import CONF


@pytest.fixture
def _interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C as soon as it serves."""

    def interrupt(self: WatchServer) -> None:
        assert self.look()[0]["id"] == self.choose()
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(WatchServer, "handle_request", interrupt)


@pytest.mark.usefixtures("_interrupted")
@pytest.mark.parametrize("words", [[], ["last"], ["sweep"], ["sweep-01"]])
def test_it_says_what_it_shows_and_where(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    LiveSweep(tmp_path, [{"seed": "0"}])
    assert main(["watch", *words, "--store", str(tmp_path), "--port", "0"]) == 0
    first, url, _, last = capsys.readouterr().out.splitlines()
    assert first == "sweep-0123456789" and url.startswith("http://127.0.0.1:")
    assert last == "the page is closed; a sweep that trains goes on"


@pytest.mark.usefixtures("_interrupted")
def test_without_a_sweep_it_waits_for_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", "--store", str(tmp_path / "new"), "--port", "0"]) == 0
    assert capsys.readouterr().out.startswith(f"no sweep yet in {tmp_path / 'new'}: it appears once it begins\n")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["x"], "'x' begins the id of no sweep in .*live; there are sweep-0123456789"),
        (["--port", "x"], "--port: got x; it must be a whole number, 0 to 65535"),
        (["--port", "65536"], "--port: got 65536; it must be a whole number, 0 to 65535"),
        (["--port", "-1"], "--port: got -1; it must be a whole number, 0 to 65535"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    LiveSweep(tmp_path, [{"seed": "0"}])
    assert main(["watch", *words, "--store", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(f"error: {line}\n", err), err


def test_ctrl_c_ends_a_process_that_has_pages_open_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "loralab", "watch", "--store", str(tmp_path), "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(CONF.parent / "src")}
    process = Process(command, tmp_path / "said", env=environment, cwd=tmp_path)
    process.until(lambda: "Ctrl-C" in process.text())
    with urllib.request.urlopen(process.text().splitlines()[1] + "events", timeout=10) as page:
        assert page.readline().startswith(b"retry")
        process.send_signal(signal.SIGINT)
        assert process.ends().splitlines()[3:] == ["the page is closed; a sweep that trains goes on"]
