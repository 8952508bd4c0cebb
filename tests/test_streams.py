"""Standard output and error: closed, full, no longer read or in ASCII, they end no command with a traceback."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

FULL = Path("/dev/full")
CODE = "import sys; from loralab.streams import finish, prepare; prepare(); {}; sys.exit(finish(0, unread=141))"
SETTINGS = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "LC_ALL": "C", "PYTHONUTF8": "0"}


def ran(
    code: str, *, before: Callable[[], None] | None = None, stdout: int | None = subprocess.PIPE, **environment: str
) -> tuple[int, str, str]:
    """The exit status, output and errors of a process that prepares its streams, runs `code`, and finishes them."""
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(code)],
        stdout=stdout,
        stderr=subprocess.PIPE,
        env={**SETTINGS, "PYTHONUNBUFFERED": "", **environment},
        preexec_fn=before,
        check=False,
    )
    return done.returncode, (done.stdout or b"").decode("ascii"), done.stderr.decode("ascii")


def test_what_an_encoding_lacks_is_spelt_or_escaped() -> None:
    text = ascii("λ ΔW é \udce9 ✓ \U0001f600")
    status, out, err = ran(f"print({text}); print({text}, file=sys.stderr)")
    assert (status, out) == (0, "lambda DW \\xe9 \\xe9 + \\U0001f600\n")
    assert err == out
    assert ran(f"print({text})", PYTHONIOENCODING="ascii:strict", PYTHONUTF8="1") == (0, out, "")
    assert ran(f"print({text})", PYTHONUNBUFFERED="1") == (0, out, "")


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_a_closed_stream_is_the_null_device_and_takes_no_files_place(closed: tuple[int, ...], tmp_path: Path) -> None:
    code = (
        f"print('x'); print('y', file=sys.stderr); stream = open({str(tmp_path / 'f')!r}, 'w'); "
        "assert stream.fileno() > 2; import os, subprocess; "
        "assert subprocess.run(['true']).returncode == 0; assert all(os.get_inheritable(number) for number in range(3))"
    )

    def close() -> None:
        for number in closed:
            os.close(number)

    status, out, err = ran(code, before=close)
    assert (status, out, err) == (0, "" if 1 in closed else "x\n", "" if 2 in closed else "y\n")


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_output_is_one_line_once_all_is_done(unbuffered: str, tmp_path: Path) -> None:
    code = f"print('x' * 100_000, flush=True); print('y'); open({str(tmp_path / 'done')!r}, 'w').close()"
    with FULL.open("wb") as full:
        status, _, err = ran(code, stdout=full.fileno(), PYTHONUNBUFFERED=unbuffered)
    assert status == 2 and (tmp_path / "done").exists()
    assert err.startswith("error: standard output: No space left on device; ") and err.count("\n") == 1


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")
def test_a_full_standard_error_changes_nothing() -> None:
    def full() -> None:
        os.dup2(os.open(FULL, os.O_WRONLY), 2)

    assert ran("print('x', file=sys.stderr, flush=True); print('y')", before=full) == (0, "y\n", "")


def test_a_reader_that_is_gone_does_not_end_the_work(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    status, _, err = ran(f"print('x', flush=True); open({str(tmp_path / 'done')!r}, 'w').close()", stdout=write)
    os.close(write)
    assert (status, err) == (141, "") and (tmp_path / "done").exists()


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")
def test_a_long_work_can_ask_whether_its_output_is_still_written(tmp_path: Path) -> None:
    """What it has printed so far is flushed by that."""
    asked = "from loralab.streams import is_unread; print('x'); open(sys.argv[-1], 'w').write(str(is_unread()))"
    code = asked.replace("sys.argv[-1]", repr(str(tmp_path / "answer")))
    with FULL.open("wb") as full:
        assert ran(code, stdout=full.fileno())[0] == 2
    assert (tmp_path / "answer").read_text() == "True"
    assert ran(code)[:2] == (0, "x\n") and (tmp_path / "answer").read_text() == "False"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_stream_that_does_not_block_is_waited_for(unbuffered: str) -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    command = [sys.executable, "-c", CODE.format("print('x' * 1_000_000)")]
    with subprocess.Popen(command, stdout=write, env={**SETTINGS, "PYTHONUNBUFFERED": unbuffered}) as process:
        os.close(write)
        with os.fdopen(read, "rb") as stream:
            assert len(stream.read()) == 1_000_001
    assert process.returncode == 0


def test_the_streams_of_another_program_are_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    from loralab.streams import finish, prepare

    before = sys.stdout, sys.stderr
    prepare()
    print("λ")
    assert (sys.stdout, sys.stderr) == before and finish(0, unread=141) == 0
    assert capsys.readouterr() == ("λ\n", "")
