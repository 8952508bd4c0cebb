"""Laws of a file in blocks: every row comes back, in order, whatever the block's size, and a mistake names its line."""

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from loralab.errors import UserError
from loralab.tasks import row_blocks
from loralab.tasks.row_blocks import open_rows, output

FRAME = pd.DataFrame({
    "id": range(7),
    "text": ["plain", 'he said "no", twice', "two\nlines", "", "tab\there", "ünïcode", "last"],
    "other": list("abcdefg"),
})  # fmt: skip
TEXT = {"text": "--text"}


def written(path: Path) -> Path:
    if path.suffix in (".csv", ".tsv"):
        FRAME.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    elif path.suffix == ".jsonl":
        FRAME.to_json(path, orient="records", lines=True)
    else:
        FRAME.to_parquet(path)
    return path


def read_again(path: Path) -> pd.DataFrame:
    if path.suffix == ".jsonl":
        return pd.read_json(path, lines=True)
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    return pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",", keep_default_na=False, na_values={"score": ""})


def copied(source: Path, to: Path, columns: Mapping[str, str] = TEXT) -> tuple[list[str], list[str]]:
    """Writes the file with the columns `prediction` and `score`; returns the texts and their places."""
    texts, where = list[str](), list[str]()
    with open_rows(str(source), columns, None) as rows, output(rows, to) as out:
        for block in rows.blocks():
            some = block.table.columns[next(iter(columns))]
            new = {"prediction": [t[:2] or None for t in some], "score": [float(len(t)) if t else None for t in some]}
            rows.put(out, block, new, {"prediction": str, "score": float})
            texts += some
            where += block.table.where
    return texts, where


@pytest.mark.parametrize("size", [1, 2, 100])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_a_file_comes_out_as_it_came_in_with_more_columns(
    suffix: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_blocks, "BLOCK", size)
    texts, where = copied(written(tmp_path / f"in{suffix}"), to := tmp_path / f"out{suffix}")
    assert texts == FRAME["text"].tolist()
    again = read_again(to)
    pd.testing.assert_frame_equal(again[["id", "text", "other"]], FRAME, check_dtype=False)
    assert again["prediction"].fillna("").tolist() == [text[:2] for text in texts]
    assert again["score"].fillna(0).tolist() == [len(text) for text in texts]
    assert where[4] == {".jsonl": "line 5", ".parquet": "row 5"}.get(suffix, "line 7"), "the third row has two lines"


def test_text_is_one_a_line_and_two_are_apart_by_a_tab(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes(b"\xef\xbb\xbfone\r\n\r\nthree, and \ttab\n")
    texts, where = copied(tmp_path / "in.txt", tmp_path / "out.txt")
    assert texts == ["one", "", "three, and \ttab"] and where == ["line 1", "line 2", "line 3"]
    assert (tmp_path / "out.txt").read_text() == "on\t3.0\n\t\nth\t15.0\n"
    (tmp_path / "in.txt").write_text("one\ttwo\n\nthree\tfour\n")
    with open_rows(str(tmp_path / "in.txt"), {"a": "", "b": ""}, None) as rows:
        (block,) = rows.blocks()
        assert block.table.columns == {"a": ["one", "", "three"], "b": ["two", "", "four"]}
    (tmp_path / "in.txt").write_text("one\ttwo\nthree\n")
    message = r"in\.txt, line 2: has one text; the run reads two, with a tab between$"
    with open_rows(str(tmp_path / "in.txt"), {"a": "", "b": ""}, None) as rows, pytest.raises(UserError, match=message):
        list(rows.blocks())


def test_a_block_reads_no_further_than_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a pipe is answered as it comes, and a file needs not fit into memory."""
    monkeypatch.setattr(row_blocks, "BLOCK", 3)
    for suffix, line in ((".csv", "text,x\n"), (".jsonl", '{"text": "a"}\n'), (".txt", "a\n")):
        path = tmp_path / f"long{suffix}"
        path.write_text(line + ("a,b\n" if suffix == ".csv" else line) * 50_000)
        with open_rows(str(path), TEXT, None) as rows:
            blocks = rows.blocks()
            assert len(next(blocks).table) == 3
            share = rows.share()
            assert share is not None and share < 0.5


def test_a_mistake_in_a_later_block_names_its_own_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_blocks, "BLOCK", 4)
    rows = [[f"text {i}", "x"] for i in range(40)]
    for name, content, message in (
        ("fields.csv", [*rows[:20], ["a", "b", "c"], *rows[20:]], "line 22: has 3 fields, and the header has 2"),
        ("header.csv", [*rows[:9], ["text", "x"], *rows], r"line 11: repeats the header \(text, x\); remove the line"),
    ):
        file = io.StringIO()
        csv.writer(file, lineterminator="\n").writerows([["text", "x"], *content])
        (tmp_path / name).write_text(file.getvalue())
        with pytest.raises(UserError, match=rf"{name}, {message}"), open_rows(str(tmp_path / name), TEXT, None) as of:
            list(of.blocks())
    (tmp_path / "quote.csv").write_text("text,x\n" + "a,b\n" * 10 + '"open,b\n' + "a,b\n" * 10)
    with pytest.raises(UserError, match=r"quote\.csv, line 12: malformed"):
        copied(tmp_path / "quote.csv", tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()
    (tmp_path / "bytes.jsonl").write_bytes(b'{"text": "a"}\n' * 6 + b'{"text": "\xff"}\n')
    with pytest.raises(UserError, match=r"bytes\.jsonl, line 7: not UTF-8 \(invalid start byte\)"):
        copied(tmp_path / "bytes.jsonl", tmp_path / "out.jsonl")
    (tmp_path / "object.jsonl").write_text('{"text": "a"}\n' * 6 + '{"txt": "b"}\n')
    with pytest.raises(UserError, match=r"^--text: \S*object\.jsonl, line 7 has no column 'text'; its columns: txt"):
        copied(tmp_path / "object.jsonl", tmp_path / "out.jsonl")


def test_lines_with_tabs_that_are_not_quoted_csv_are_rows_and_a_record_without_end_is_not_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_blocks, "BLOCK", 4)
    lines = [f'"Sing {i}\tx' if i % 5 == 0 else f"hum {i}\tx" for i in range(20)]
    (tmp_path / "in.tsv").write_text("\n".join(["text\tother", *lines]))
    assert copied(tmp_path / "in.tsv", tmp_path / "out.tsv")[0] == [line.split("\t")[0] for line in lines]
    monkeypatch.setattr(row_blocks, "LONGEST", 100)
    (tmp_path / "in.csv").write_text("text,x\n" + '"open,b\n' + "a,b\n" * 10_000)
    with open_rows(str(tmp_path / "in.csv"), TEXT, None) as rows:
        with pytest.raises(UserError, match="line 2: malformed"):
            next(rows.blocks())
        assert rows.stream.tell() < 20_000


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("in.csv", "body,class\na,b\n", r"^--text: \S+ has no column 'text'; its columns: body, class$"),
        ("in.csv", "", r"is empty; its first line must name the columns$"),
        ("in.csv", b"\xff\xfea\0", r"looks like UTF-16"),
        ("in.parquet", "no parquet", r"in\.parquet: cannot be read as parquet"),
        ("in.xml", "", r"^FILE: '\S+' must end in one of \.csv, \.tsv, \.jsonl, \.parquet, \.txt$"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(name: str, content: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message), open_rows(str(tmp_path / name), TEXT, None) as rows:
        list(rows.blocks())


def test_the_output_has_the_inputs_format(tmp_path: Path) -> None:
    with open_rows(str(written(tmp_path / "in.parquet")), TEXT, None) as rows:
        for to, message in ((tmp_path / "out.csv", r"end it in \.parquet$"), (None, "parquet is written to a file")):
            with pytest.raises(UserError, match=message), output(rows, to):
                pass


def test_json_lines_keep_what_each_row_has(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"text": "a", "deep": {"x": [1, None]}}, {"more": "é", "text": "b"}]
    (tmp_path / "in.jsonl").write_text("\n\n".join(json.dumps(row) for row in rows))
    copied(tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    lines = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [row | {"prediction": row["text"], "score": 1.0} for row in rows]
    assert "é" in lines[1]
