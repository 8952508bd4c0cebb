"""The `loralab` command: help everywhere, one line for a mistake, and no heavy import before it is needed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from loralab.cli.main import main
from loralab.store.run_directory import RunDirectory


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """The exit status, standard output and standard error of a command."""
    try:
        status = main(arguments)
    except SystemExit as end:
        status = int(end.code or 0)
    out, err = capsys.readouterr()
    return status, out, err


def test_alone_it_prints_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = said(capsys)
    assert (status, err) == (0, "")
    for command in ("runs", "rm", "show", "export", "predict", "evaluate", "spectrum", "compare", "probes", "doctor"):
        assert f"\n    {command} " in out


@pytest.mark.parametrize(
    "command", ["runs", "rm", "show", "export", "predict", "evaluate", "spectrum", "compare", "probes", "doctor"]
)
def test_every_subcommand_has_help_with_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = said(capsys, command, "--help")
    assert status == 0
    assert f"examples:\n  loralab {command}" in out
    assert "--store" in out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["shwo", "x"], "argument COMMAND: invalid choice: 'shwo'"),
        (["show", "\x1b[2J\u202e"], "'\\x1b[2J\\u202e' names no run in "),
        (["show", "x", "--\x1b[2J"], "unrecognized arguments: --\\x1b[2J"),
        (["show"], "the following arguments are required: RUN; see `loralab show --help`"),
        (["show", "x", "--jsno"], "unrecognized arguments: --jsno; did you mean --json?; see `loralab show --help`"),
        (["study"], "the following arguments are required: STUDY; see `loralab study --help`"),
        (["show", "nothing"], "'nothing' names no run in "),
        (["export", "nothing", "--to", "x"], "'nothing' names no run in "),
        (["export", "nothing"], "the following arguments are required: --to"),
        (["export", "x", "--to", "y", "--dtype", "int8"], "argument --dtype: invalid choice: 'int8'"),
    ],
)
def test_a_mistake_is_one_line_and_status_two(
    arguments: list[str],
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LORALAB_STORE", str(tmp_path))
    status, out, err = said(capsys, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith(f"error: {line}")
    assert err.count("\n") == 1


def test_a_mistyped_command_or_choice_gets_the_nearest_one(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, near in ((("shwo",), "show"), (("export", "x", "--to", "y", "--dtype", "bf61"), "bf16")):
        assert f"; did you mean {near}?; see `loralab" in said(capsys, *arguments)[2]


def test_what_cannot_be_read_or_written_is_one_line(
    finished: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, file, long = str(finished.path.parent.parent), tmp_path / "file", "A" * 300
    file.touch()
    for arguments, line in (
        (("export", finished.hash, "--to", f"{file}/x", "--store", store), f"{file}: File exists; move it away"),
        (("runs", "--store", long), f"--store: there is no folder {long}; "),
        (("show", "x", "--store", "nowhere"), "--store: there is no folder nowhere; "),
        (("show", long, "--store", store), f"'{long}' names no run in {store}/runs; `loralab runs` lists them"),
    ):
        status, out, err = said(capsys, *arguments)
        assert (status, out) == (2, "") and err.startswith(f"error: {line}") and err.count("\n") == 1, err


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Path) -> list[str]:
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr("loralab.cli.runs.rows_of", broken)
    with pytest.raises(OSError, match="Bad file descriptor"):
        main(["runs"])


def test_runs_lists_the_store_that_the_environment_or_the_flag_names(
    finished: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = str(finished.path.parent.parent)
    assert finished.hash in said(capsys, "runs", "--store", store)[1]
    monkeypatch.setenv("LORALAB_STORE", store)
    assert finished.hash in said(capsys, "runs")[1]
    assert "no runs in" in said(capsys, "runs", "--store", str(tmp_path))[1]


def test_a_run_goes_by_directory_name_hash_or_a_beginning(
    finished: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ("--store", str(finished.path.parent.parent))
    for name in (str(finished.path), finished.path.name, finished.hash, finished.hash[:4], "tiny-rotten"):
        status, out, _ = said(capsys, "show", name, *store)
        assert status == 0 and out.startswith(f"{finished.path.name}\n")


def test_show_json_is_the_record(finished: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(said(capsys, "show", str(finished.path), "--json")[1]) == finished.record()


def test_export_says_where(finished: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = said(capsys, "export", str(finished.path), "--to", str(tmp_path / "out"))
    assert (status, err) == (0, "")
    assert out == f"{finished.path.name}: adapter in PEFT format in {tmp_path / 'out'}\n"
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()


def test_looking_at_runs_imports_no_torch(finished: RunDirectory) -> None:
    store = finished.path.parent.parent
    code = (
        "import sys; from loralab.cli.main import main\n"
        "for arguments in ([], ['runs', '--store', sys.argv[1]], ['show', sys.argv[2], '--store', sys.argv[1]]):\n"
        "    assert main(arguments) == 0\n"
        "assert not {'torch', 'transformers', 'datasets', 'wandb', 'rich', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, store, finished.hash], check=True, capture_output=True)


def test_a_reader_that_stops_reading_is_no_error(finished: RunDirectory) -> None:
    command = [sys.executable, "-m", "loralab.cli.main", "show", str(finished.path), "--json"]
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")
