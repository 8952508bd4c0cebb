"""Data files are read exactly, and every defect is a one-line error with file and line."""

# ruff: noqa: E501, a case of a table is one line
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loralab.errors import UserError
from loralab.tasks.table_files import SUFFIXES, Table, existing, read_table

COLUMNS = {"text": "task.text", "label": "task.label"}
ROWS = [("plain", "0"), ('with "quotes", a comma', "1"), ("two\nlines\tand a tab", "0"), ("naïve 電影", "1")]


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _write(path: Path, rows: list[tuple[str, str]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(
            pa.table({"id": [0] * len(rows), "text": [t for t, _ in rows], "label": [n for _, n in rows]}), path
        )
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"label": n, "text": t, "id": 0}) + "\n" for t, n in rows), encoding="utf-8")
    else:
        comma = "," if path.suffix == ".csv" else "\t"
        lines = [comma.join(cells) for cells in [("id", "text", "label"), *(("0", _quoted(t), n) for t, n in rows)]]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_gives_the_same_columns(tmp_path: Path, suffix: str) -> None:
    table = read_table(_write(tmp_path / f"data{suffix}", ROWS), COLUMNS)
    assert table.columns == {"text": [text for text, _ in ROWS], "label": [label for _, label in ROWS]}


def test_lines_are_the_files_own(tmp_path: Path) -> None:
    assert read_table(_write(tmp_path / "a.csv", ROWS), COLUMNS).where == ["line 2", "line 3", "line 4", "line 6"]
    assert read_table(_write(tmp_path / "a.jsonl", ROWS), COLUMNS).where == [f"line {i}" for i in range(1, 5)]
    assert read_table(_write(tmp_path / "a.parquet", ROWS), COLUMNS).where == [f"row {i}" for i in range(1, 5)]


def test_a_byte_order_mark_windows_line_ends_and_blank_lines_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbftext,label\r\n\r\na,0\r\nb,1\r\n")
    assert read_table(path, COLUMNS) == Table(path, {"text": ["a", "b"], "label": ["0", "1"]}, ["line 3", "line 4"])


def test_a_very_long_cell_is_read_whole(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.csv", [("x" * 300_000, "0")])
    assert len(read_table(path, COLUMNS).columns["text"][0]) == 300_000


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", r"a\.csv: is empty; its first line must name the columns"),
        ("a.csv", b"text,label\n", r"a\.csv: has no rows"),
        ("a.csv", b"txt,label\na,0\n", r"task\.text: \S*a\.csv has no column 'text'; its columns: txt, label; did you mean 'txt'\?"),
        ("a.csv", b"text,label,text\na,0,b\n", r"task\.text: \S*a\.csv has 2 columns named 'text'"),
        ("a.csv", b"text,label\na,0\nb\n", r"a\.csv, line 3: has 1 fields, and the header has 2"),
        ("a.csv", b'text,label\na,0\n"b,1\nc,0\n', r"a\.csv, line 3: malformed \(unexpected end of data\)"),
        ("a.csv", b'text,label\na,0\n"b"x,1\n', r"a\.csv, line 3: malformed \(',' expected after '\"'\)"),
        ("a.csv", b"text,label\na,0\n\xff\xfe,1\n", r"a\.csv, line 3: not UTF-8 \(invalid start byte\)"),
        ("a.jsonl", b"\n", r"a\.jsonl: has no rows"),
        ("a.jsonl", b'{"text": "a", "label": 0}\n{"text": \n', r"a\.jsonl, line 2: malformed JSON \(Expecting value, column \d+\)"),
        ("a.jsonl", b'["a", 0]\n', r"a\.jsonl, line 1: holds a JSON list; each line must be an object"),
        ("a.jsonl", b'{"text": "a", "label": 0}\n{"text": "b"}\n', r"task\.label: \S*a\.jsonl, line 2 has no column 'label'"),
        ("a.jsonl", b'\xef\xbb\xbf{"text": "\xe9"}\n', r"a\.jsonl, line 1: not UTF-8"),
        ("a.parquet", b"not parquet at all", r"a\.parquet: cannot be read as parquet \("),
        ("a.parquet", b"", r"a\.parquet: cannot be read as parquet \("),
    ],
)  # fmt: skip
def test_a_defect_is_one_line_with_file_and_place(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as raised:
        read_table(path, COLUMNS)
    assert "\n" not in str(raised.value)


def test_parquet_without_a_column_lists_those_it_has(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.parquet", ROWS)
    with pytest.raises(
        UserError, match=r"task\.text: \S*a\.parquet has no column 'texts'; its columns: id, text, label; did"
    ):
        read_table(path, {"texts": "task.text"})


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    _write(tmp_path / "train.csv", ROWS)
    with pytest.raises(
        UserError, match=r"task\.files\.train: '\S*trian\.csv' does not exist .* mean '\S*train\.csv'\?"
    ):
        existing("task.files.train", str(tmp_path / "trian.csv"))
    with pytest.raises(UserError, match=r"nowhere/a\.csv' does not exist"):
        existing("task.files.train", str(tmp_path / "nowhere" / "a.csv"))
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UserError, match="is a directory"):
        existing("task.files.train", str(tmp_path / "folder.csv"))


def test_an_unknown_kind_of_file_lists_those_known(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"task\.files\.test: \S*a\.xlsx' must end in one of \.csv, \.tsv, \.jsonl, \.parquet"
    ):
        existing("task.files.test", str(tmp_path / "a.xlsx"))
