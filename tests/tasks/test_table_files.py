"""Data files are read exactly, and every defect is a one-line error with file and line."""

# ruff: noqa: E501, a case of a table is one line
import json
import os
import re
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
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
    elif path.suffix == ".xlsx":
        cells = [("id", "text", "label"), (None, None, None), *(("0", *row) for row in rows)]
        pd.DataFrame(cells).to_excel(path, header=False, index=False)
    elif path.suffix == ".json":
        path.write_text(json.dumps([{"label": n, "text": t, "id": 0} for t, n in rows]), encoding="utf-8")
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
    assert read_table(_write(tmp_path / "a.json", ROWS), COLUMNS).where == [f"row {i}" for i in range(1, 5)]
    assert read_table(_write(tmp_path / "a.parquet", ROWS), COLUMNS).where == [f"row {i}" for i in range(1, 5)]
    assert read_table(_write(tmp_path / "a.xlsx", ROWS), COLUMNS).where == [f"row {i}" for i in range(3, 7)]


def test_a_folder_of_parquet_files_is_one_table(tmp_path: Path) -> None:
    for name, rows in (("b", ROWS[2:]), ("a", ROWS[:2])):
        _write(tmp_path / f"{name}.parquet", rows)
    (tmp_path / "README.md").write_text("not a table")
    folder = existing("task.files.train", str(tmp_path))
    table = read_table(folder, COLUMNS)
    assert table.columns["text"] == [text for text, _ in ROWS]
    assert table.where == ["a.parquet, row 1", "a.parquet, row 2", "b.parquet, row 1", "b.parquet, row 2"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"this folder has no \.parquet file"):
        existing("task.files.train", str(tmp_path / "empty"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"text": "a", "label": 1}, 2]', "row 2: holds a JSON int; each row must be an object"),
        ('[{"text": "a"}]', "row 1 has no column 'label'; its columns: text"),
        ('[{"text": "a", "label": 1},\n {"text"}]', "line 2: malformed JSON"),
        ('"a"', "holds a JSON str; it must be a list of objects"),
        ("[]", "has no rows"),
    ],
)
def test_what_is_no_list_of_objects_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(UserError, match=rf"{re.escape(str(path))}.*{message}"):
        read_table(path, COLUMNS)


def test_a_json_file_of_one_object_a_line_is_read_too(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.jsonl", ROWS).rename(tmp_path / "a.json")
    assert read_table(path, COLUMNS).columns["label"] == [label for _, label in ROWS]


def test_a_damaged_spreadsheet_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.xlsx"
    path.write_bytes(b"PK\x03\x04 no more")
    with pytest.raises(UserError, match=r"^\S*a\.xlsx: cannot be read as xlsx \([^\n]*\)$"):
        read_table(path, COLUMNS)


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
        ("a.csv", "text,label\na,0\n".encode("utf-16"), r"a\.csv: looks like UTF-16, not UTF-8; save the file as UTF-8"),
        ("a.csv", "text,label\na,0\n".encode("utf-16-le"), r"a\.csv: looks like UTF-16, not UTF-8"),
        ("a.jsonl", b"\n", r"a\.jsonl: has no rows"),
        ("a.jsonl", b'{"text": "a", "label": 0}\n{"text": \n', r"a\.jsonl, line 2: malformed JSON \(Expecting value, column \d+\)"),
        ("a.jsonl", b'["a", 0]\n', r"a\.jsonl, line 1: holds a JSON list; each row must be an object"),
        ("a.jsonl", b'{"text": "a", "label": 0}\n{"text": "b"}\n', r"task\.label: \S*a\.jsonl, line 2 has no column 'label'"),
        ("a.jsonl", b'\xef\xbb\xbf{"text": "\xe9"}\n', r"a\.jsonl, line 1: not UTF-8"),
        ("a.jsonl", b'{"text": "a", "label": 0, "label": 1}\n', r"a\.jsonl, line 1: has 'label' more than once; keep one"),
        ("a.csv", b"text,\x1b[2Jlabel\na,0\n", r"its columns: text, \\x1b\[2Jlabel"),
        ("a.csv", b"x" * 200_000, r"its columns: x+\.\.\.x+$"),
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


DAY = 2**62
TYPES: dict[str, pa.Array] = {
    "timestamp[us]": pa.array([DAY, DAY], pa.timestamp("us")),
    "timestamp[us, tz=Nowhere/City]": pa.array([DAY, DAY], pa.timestamp("us", tz="Nowhere/City")),
    "date32[day]": pa.array([2**30, 0], pa.date32()),
    "time64[us]": pa.array([2**40, 0], pa.time64("us")),
    "duration[ms]": pa.array([DAY, DAY], pa.duration("ms")),
    "binary": pa.array([b"\xff", b"a"]),
    "fixed_size_binary[2]": pa.array([b"ab", b"cd"], pa.binary(2)),
    "list<element: int64>": pa.array([[1], [2]]),
    "struct<a: int64>": pa.array([{"a": 1}, {"a": 2}]),
    "dictionary<values=binary, indices=int32, ordered=0>": pa.array([b"a", b"b"]).dictionary_encode(),
}


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("column", COLUMNS)
def test_a_column_that_is_neither_text_nor_numbers_is_refused_by_its_type(
    tmp_path: Path, kind: str, column: str
) -> None:
    plain = {"text": pa.array(["a", "b"]), "label": pa.array([0, 1])}
    pq.write_table(pa.table(plain | {column: TYPES[kind]}), tmp_path / "a.parquet")
    with pytest.raises(UserError) as raised:
        read_table(tmp_path / "a.parquet", COLUMNS)
    line = f"task.{column}: column '{column}' of {tmp_path}/a.parquet has the type {kind}; allowed: text, numbers, "
    assert str(raised.value).startswith(line)
    assert len(read_table(tmp_path / "a.parquet", {({"text", "label"} - {column}).pop(): "task.x"})) == 2


def test_parquet_cells_are_text_numbers_and_null(tmp_path: Path) -> None:
    columns = {
        "dictionary": (pa.array(["a", None, "a"]).dictionary_encode(), ["a", None, "a"]),
        "decimal": (pa.array([Decimal("1.00"), None, Decimal("0.25")]), [1, None, 0.25]),
        "half": (pa.array([np.float16(0.1), None, np.float16(2)], pa.float16()), [0.1, None, 2.0]),
        "single": (pa.array([0.1, None, float("nan")], pa.float32()), [0.1, None, float("nan")]),
        "truth": (pa.array([True, None, False]), [True, None, False]),
        "large": (pa.array([2**63, None, 1], pa.uint64()), [2**63, None, 1]),
        "null": (pa.array([None, None, None], pa.null()), [None, None, None]),
    }
    path = tmp_path / "class=1" / "a.parquet"  # a folder that would name a column if it were a data set's
    path.parent.mkdir()
    pq.write_table(pa.table({name: cells for name, (cells, _) in columns.items()}), path)
    found = read_table(path, dict.fromkeys(columns, "task.text")).columns
    assert repr(found) == repr({name: expected for name, (_, expected) in columns.items()})
    with pytest.raises(UserError, match=r"has no column 'class'; its columns: dictionary, "):
        read_table(path, {"class": "task.label"})
    pq.write_table(pa.table({}), tmp_path / "none.parquet")
    with pytest.raises(UserError, match=r"none\.parquet has no column 'text'; its columns: none$"):
        read_table(tmp_path / "none.parquet", COLUMNS)


def test_what_is_no_regular_file_is_refused_without_opening_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "circle.csv").symlink_to(tmp_path / "circle.csv")
    (tmp_path / "nowhere.csv").symlink_to(tmp_path / "none")
    for name, found in {
        "pipe": "is not a regular file",
        "circle": "does not exist",
        "nowhere": "does not exist",
    }.items():
        with pytest.raises(UserError, match=rf"^task\.files\.train: '\S*{name}\.csv' {found} \(looked in "):
            existing("task.files.train", str(tmp_path / f"{name}.csv"))
    for path in ("a" * 5000 + ".csv", "a\0.csv", f"{tmp_path}/pipe.csv/a.csv", "~nobody/a.csv"):
        with pytest.raises(UserError, match=r"^task\.files\.train: [^\n]*$"):
            existing("task.files.train", path)


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
        UserError,
        match=r"task\.files\.test: \S*a\.docx' must end in one of \.csv, \.tsv, \.jsonl, \.json, \.xlsx, \.parquet",
    ):
        existing("task.files.test", str(tmp_path / "a.docx"))
