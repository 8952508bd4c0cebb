"""`loralab predict`: a file's rows come out with predictions beside them; a mistake is one line, before the model."""

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from loralab.store.run_directory import RunDirectory
from loralab.tasks import row_blocks
from loralab.training.signals import Interrupted, Interrupts
from tests.cli.test_main import said

TEXTS = ["a fine film", "dull, very dull", "", "the plot is thin"]


def table(path: Path, *, text: str = "text") -> Path:
    pd.DataFrame({"id": [7, 8, 9, 10], text: TEXTS}).to_csv(path, index=False)
    return path


def test_a_csv_comes_back_with_names_and_probabilities_whatever_the_blocks(
    finished: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "out.csv"
    status, out, err = said(capsys, "predict", str(finished.path), str(table(tmp_path / "in.csv")), "--to", str(to))
    assert (status, out) == (0, "")
    assert err.splitlines() == [
        "warning: 1 row without text or prediction (the first: line 4)",
        f"4 rows in {to}, by {finished.path.name}",
    ]
    found = pd.read_csv(to)
    assert list(found) == ["id", "text", "prediction", "probability", "p(negative)", "p(positive)"]
    assert found["id"].tolist() == [7, 8, 9, 10] and found["prediction"].isna().tolist() == [False, False, True, False]
    there = found.dropna()
    assert (there["p(negative)"] + there["p(positive)"]).to_numpy() == pytest.approx(1, abs=1e-5)
    monkeypatch.setattr(row_blocks, "BLOCK", 1)
    status, out, _ = said(capsys, "predict", str(finished.path), str(tmp_path / "in.csv"))
    assert status == 0
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(out)), found, atol=1e-5)


def test_standard_input_is_a_text_a_line_or_the_format_named(
    finished: RunDirectory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def given(text: str, *more: str) -> list[str]:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(text.encode())))
        status, out, err = said(capsys, "predict", str(finished.path), "-", *more)
        assert status == 0, err
        return out.splitlines()

    lines = given("\n".join(TEXTS))
    assert [line.count("\t") for line in lines] == [3] * 4 and lines[2] == "\t\t\t"
    rows = [json.loads(line) for line in given('{"body": "a fine film"}\n', "--format", "jsonl", "--text", "body")]
    assert rows[0]["prediction"] == lines[0].split("\t")[0] and rows[0]["body"] == "a fine film"


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["{csv}"], "--text: {csv} has no column 'text'; its columns: id, body"),
        (["{csv}", "--text", "bdy"], "--text: {csv} has no column 'bdy'; its columns: id, body; did you mean 'body'?"),
        (["{csv}", "--text", "id", "--text", "body"], "--text: got id, body; the run reads 1 column: text"),
        (["{csv}", "--text", "body", "--to", "out.jsonl"], "--to: got 'out.jsonl'; the output has the format of the"),
        (["nothing.csv"], "FILE: 'nothing.csv' does not exist"),
        (["{empty}"], "{empty}: has no rows"),
        (["-", "--format", "xml"], "argument --format: invalid choice: 'xml'"),
    ],
)
def test_a_mistake_is_one_line_before_the_model_is_loaded(
    more: list[str],
    line: str,
    finished: RunDirectory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("loralab.runs.load.restore", lambda *_: pytest.fail("loaded"))
    names = {"csv": table(tmp_path / "in.csv", text="body"), "empty": tmp_path / "empty.csv"}
    names["empty"].write_text("text,id\n")
    status, out, err = said(capsys, "predict", str(finished.path), *(each.format(**names) for each in more))
    assert (status, out) == (2, "") and err.startswith(f"error: {line.format(**names)}") and err.count("\n") == 1, err


def test_a_column_that_is_there_already_is_not_written_over(
    finished: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.csv").write_text("text,prediction\na,b\n")
    status, _, err = said(capsys, "predict", str(finished.path), str(tmp_path / "in.csv"), "--device", "cpu")
    assert status == 2 and "has a column 'prediction' already, which predictions are written to; rename it" in err


def test_a_terminal_sees_how_far_it_is(
    finished: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    to = tmp_path / "out.csv"
    status, _, err = said(capsys, "predict", str(finished.path), str(table(tmp_path / "in.csv")), "--to", str(to))
    assert status == 0 and "4 rows" in err.split("warning")[0]


def test_a_stop_leaves_no_file(
    finished: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(_: Interrupts) -> None:
        raise Interrupted(15)

    monkeypatch.setattr(Interrupts, "check", stop)
    (tmp_path / "to").mkdir()
    to = str(tmp_path / "to" / "out.csv")
    status, out, err = said(capsys, "predict", str(finished.path), str(table(tmp_path / "in.csv")), "--to", to)
    assert (status, out, err) == (143, "", "") and list((tmp_path / "to").iterdir()) == []


def test_nothing_is_predicted_for_a_reader_that_stops_reading(
    finished: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("loralab.streams.is_unread", lambda: True)
    monkeypatch.setattr(row_blocks, "BLOCK", 1)
    status, out, err = said(capsys, "predict", str(finished.path), str(table(tmp_path / "in.csv")))
    assert (status, err) == (0, "") and len(out.splitlines()) == 2, "a header and the first block"
