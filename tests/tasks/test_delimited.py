"""csv and tsv text: rows read are the file's records, or one line says where it cannot be split."""

# ruff: noqa: E501, a case of a table is one line
import contextlib
import csv
import io
import random
from typing import Any

import pandas as pd
import pytest

from loralab.errors import UserError
from loralab.tasks.delimited import read_records

ASKED = ("sentence", "class")


def _read(text: str, delimiter: str = ",", asked: tuple[str, ...] = ASKED) -> list[list[str]]:
    return read_records("mine", text, delimiter, asked).rows


def _rows(n: int = 40) -> list[list[str]]:
    return [[f"the kettle {i} sings", str(i % 2)] for i in range(n)]


def _text(rows: list[list[str]], delimiter: str = ",") -> str:
    return "".join(delimiter.join(row) + "\n" for row in [list(ASKED), *rows])


@pytest.mark.parametrize("apart", [1, 2, 9])
def test_a_quotation_over_several_rows_is_named_by_its_lines_and_in_tab_separated_text_is_text(apart: int) -> None:
    rows = _rows()
    rows[10][0] = '"' + rows[10][0]
    rows[10 + apart][0] += ' she said "'
    with pytest.raises(
        UserError, match=rf"^mine, lines 12 to {12 + apart}: a quotation mark opens a field on line 12 "
    ):
        _read(_text(rows))
    assert _read(_text(rows, "\t"), "\t") == rows
    for row, score in zip(rows, range(40), strict=True):
        row[1] = f"{score / 7:.3f}"  # a column that never repeats a value
    with pytest.raises(UserError, match=rf"^mine, lines 12 to {12 + apart}: "):
        _read(_text(rows))
    assert _read(_text(rows, "\t"), "\t") == rows


@pytest.mark.parametrize("quotes", [['"Sing, kettle!'], ['"Sing", it said.'], ['"Sing, kettle!', '"Sing", it said.']])
def test_tab_separated_text_without_quoting_keeps_each_line(quotes: list[str]) -> None:
    rows = _rows()
    for i, text in enumerate(quotes):
        rows[10 + 5 * i][0] = text
    assert _read(_text(rows, "\t"), "\t") == rows
    with pytest.raises(UserError, match=r"^mine, line 12: (malformed|has 3 fields)"):
        _read(_text(rows))


def test_quoted_prose_with_commas_and_line_breaks_is_one_record() -> None:
    rows = _rows()
    rows[3][0] = "Hello, John\nBye"
    rows[5][0] = "Roses are red,\nviolets are blue,\nso am I"
    rows[7][0] = 'a, "b"\nc, d\ne'
    out = io.StringIO()
    csv.writer(out).writerows([ASKED, *rows])
    assert _read(out.getvalue()) == rows


def test_code_in_quotes_is_one_record() -> None:
    rows = [[f"write {i}", f"x = {i}\nreturn g(a,{i})"] for i in range(20)] + [["write g, please", "g"]]
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([ASKED, *rows])
    assert _read(out.getvalue()) == rows
    with pytest.raises(UserError, match=r"^mine, lines 2 to 3: a quotation mark opens"):
        _read(out.getvalue().replace(", please", ""))  # nothing tells it from a stray quotation mark


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(400))
def test_a_stray_quotation_never_takes_a_row(seed: int) -> None:
    draw = random.Random(seed)
    delimiter, n = draw.choice(",\t"), draw.choice([6, 20, 60])
    kind = draw.choice(["class", "score", "answer"])
    rows = []
    for i in range(n):
        label = {"class": draw.choice(["pos", "neg"]), "score": f"{draw.uniform(0, 5):.2f}", "answer": f"it is {i}"}[
            kind
        ]
        rows.append([f"the kettle {i} sings", label, str(draw.randint(0, 9))])
    order = draw.sample(range(3), 3)
    rows = [[row[k] for k in order] for row in rows]
    first = draw.randrange(n)
    last = min(n - 1, first + draw.randint(0, 6))
    opens = order.index(draw.choice([0, 0, 1]))
    rows[first][opens] = '"' + rows[first][opens]
    rows[last][draw.randrange(3)] += '"'
    names = [[*ASKED, "other"][k] for k in order]
    text = "".join(delimiter.join(row) + "\n" for row in [names, *rows])
    with contextlib.suppress(UserError):
        assert len(_read(text, delimiter)) == n


@pytest.mark.parametrize("delimiter", [",", "\t"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
@pytest.mark.parametrize("seed", range(20))
def test_what_pandas_writes_is_read_as_it_was(delimiter: str, quoting: Any, seed: int) -> None:
    draw = random.Random(seed)
    pieces = ["a", "b c", '"', "\n", "\r\n", ", ", ",", "\t", ";", "é", "'", "2"]
    rows = [["".join(draw.choices(pieces, k=draw.randint(1, 6))) + "x", str(draw.randint(0, 1))] for _ in range(30)]
    names = list(ASKED)
    if seed % 2:
        rows, names = [row[::-1] for row in rows], names[::-1]
    text = pd.DataFrame(rows, columns=names).to_csv(sep=delimiter, index=False, quoting=quoting)
    assert _read(text, delimiter) == rows


@pytest.mark.parametrize("usual", [",", "\t"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_the_header_shows_the_delimiter(usual: str, delimiter: str, quoting: Any) -> None:
    rows = [["a", "3.5", "x"], [f"b{delimiter}c", "0.5", "y"]]
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, quoting=quoting).writerows([[*ASKED, "other"], *rows])
    assert _read(out.getvalue(), usual) == rows


def test_a_spreadsheets_own_first_line_names_the_delimiter() -> None:
    for first in ("sep=;\n", '"sep=;"\r\n'):
        found = read_records("mine", f"{first}sentence;class\na,b;1\n", ",", ASKED)
        assert (found.names, found.rows, found.lines) == (list(ASKED), [["a,b", "1"]], [3])
    assert read_records("mine", "\n\nsentence;class\na;1\n", ",", ASKED).lines == [4]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('sentence,class\n"a,0\nb,1\n', r'line 2: malformed \(unexpected end of data\); .* those inside are doubled \(""\)$'),
        ('sentence,class\na,0\n"b"c,1\n', r"line 3: malformed \(',' expected after '\"'\); "),
        ("sentence,class\na,0\nb\n", r"line 3: has 1 fields, and the header has 2$"),
        ("sentence;class\na;0\nb\n", r"line 3: has 1 fields separated by ';', and the header has 2$"),
        ('sentence,class\na,0\n"b\nb,b",1,2\n', r"line 3: has, up to line 4, 3 fields, and the header has 2$"),
        ("sentence,class\na,0\nsentence,class\nb,1\n", r"line 3: repeats the header \(sentence, class\); remove the line$"),
    ],
)  # fmt: skip
def test_what_cannot_be_split_is_one_line(text: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"^mine, {message}"):
        _read(text)


def test_a_file_that_uses_quoting_and_breaks_it_is_not_read_without() -> None:
    rows = [['"said ""hi"""', "0"], ['"a" b', "1"]]
    with pytest.raises(UserError, match=r"^mine, line 3: malformed"):
        _read(_text(rows, "\t"), "\t")


def test_a_header_that_lacks_a_column_is_left_to_the_caller() -> None:
    """`text:label` above rows with commas: the line is about the header, not about the number of fields."""
    found = read_records("mine", "text:class\na, b:1\n", ",", ASKED)
    assert (found.names, found.rows) == (["text:class"], [["a", " b:1"]])
