"""Data files as people, spreadsheets and broken disks make them: 270 of them, the same ones in every run.

A file that is read must give its `rows` (None: what a damaged file holds is anyone's guess); any may be refused.
"""

# ruff: noqa: E501, a case of a table is one line
import csv
import gzip
import io
import json
import os
import random
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["Hostile", "hostile_files"]

N = 30
HEADER = ("sentence", "class")
WORDS = [
    "the",
    "kettle",
    "sings",
    "a",
    "quiet",
    "song",
    "of",
    "tea,",
    "and",
    "nobody",
    "listens;",
    '"why?"',
    "it",
    "asks",
    "-",
    "'why'",
    "=",
    "@home",
    "+1",
]


@dataclass(frozen=True)
class Hostile:
    """A file: `make` writes it at a path of this suffix; `exact` if it may not be refused; `more` are overrides."""

    name: str
    suffix: str
    make: Callable[[Path], Any]
    rows: int | None
    exact: bool = False
    more: tuple[str, ...] = field(default=())


def hostile_files() -> list[Hostile]:
    """All of them."""
    sources = (_encodings, _controls, _stray_quotes, _quoted_cells, _delimiters, _labels, _objects, _headers, _long)
    return [file for source in (*sources, _places, _broken_parquet, _odd_parquet) for file in source()]


def _bytes(content: bytes) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(content)


def _plain(n: int = N, label: Callable[[int], Any] = lambda i: "no" if i % 3 else "yes") -> list[tuple[str, str]]:
    return [(f"kettle {i} sings", str(label(i))) for i in range(n)]


def _cycled(values: list[Any], i: int) -> Any:
    return values[i % len(values)]


def _text(rows: list[tuple[str, str]], suffix: str, header: tuple[str, ...] = HEADER) -> str:
    """Rows as a person writes them: without quoting."""
    if suffix == ".jsonl":
        return "".join(json.dumps(dict(zip(header, row, strict=True)), ensure_ascii=False) + "\n" for row in rows)
    delimiter = "\t" if suffix == ".tsv" else ","
    return "".join(delimiter.join(row) + "\n" for row in [header, *rows])


def _encodings() -> Iterator[Hostile]:
    accented = [(f"café {i} naïve", label) for i, (_, label) in enumerate(_plain())]
    for suffix in (".csv", ".tsv", ".jsonl"):
        text = _text(accented, suffix)
        for codec in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252", "utf-7", "cp037"):
            good = codec.startswith("utf-8") or codec == "utf-7"  # utf-7 is ASCII
            yield Hostile(codec, suffix, _bytes(text.encode(codec)), N if good else None, codec.startswith("utf-8"))
        data = text.encode()
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as into:
            into.writestr("data.csv", data)
        for name, content in {
            "gzip": gzip.compress(data, mtime=0),
            "zip": archive.getvalue(),
            "half a character": data[: data.index("é".encode()) + 1],
            "two marks": b"\xef\xbb\xbf" * 2 + data,
            "a mark alone": b"\xef\xbb\xbf",
            "overlong": data.replace(b"/", b"") + b"\xc0\xaf,no\n",
        }.items():
            yield Hostile(name, suffix, _bytes(content), None)


def _controls() -> Iterator[Hostile]:
    for suffix in (".csv", ".tsv", ".jsonl"):
        for name, mark in {
            "nul": "\0", "escape": "\x1b[2J\x1b]0;x\x07", "backspace": "\b\b\b", "separators": "\x1c\x1d\x85\u2028",
            "vertical": "\v\f", "right to left": "\u202e", "surrogate pair": "😀", "no character": "\ufffe",
        }.items():  # fmt: skip
            rows = [(f"{text} {mark} end", label) for text, label in _plain()]
            yield Hostile(name, suffix, _bytes(_text(rows, suffix).encode()), N, exact=True)
            nothing = [(mark, label) for _, label in _plain()]
            yield Hostile(f"{name} alone", suffix, _bytes(_text(nothing, suffix).encode()), N)
    returned = [(f"{text}\rend", label) for text, label in _plain()]
    for suffix in (".csv", ".tsv"):
        yield Hostile("a return inside", suffix, _bytes(_text(returned, suffix).encode()), N)
        yield Hostile("old line ends", suffix, _bytes(_text(_plain(), suffix).replace("\n", "\r").encode()), N, True)


def _stray_quotes() -> Iterator[Hostile]:
    for suffix in (".csv", ".tsv"):
        for seed in range(20):
            draw = random.Random(seed)
            rows = _plain()
            for _ in range(draw.randint(1, 4)):
                at = draw.randrange(N)
                text, label = rows[at]
                rows[at] = (
                    draw.choice([f'"{text}', f'{text} "', f'"{text}"', f'"{text}" it', f'a "{text}', f'""{text}']),
                    label,
                )
            yield Hostile(f"quotes {seed}", suffix, _bytes(_text(rows, suffix).encode()), N)


def _quoted_cells() -> Iterator[Hostile]:
    for suffix in (".csv", ".tsv"):
        for seed in range(12):
            draw = random.Random(seed)
            rows = []
            for i in range(N):
                cell = "".join(draw.choices([*WORDS, '"', "\n", "\r\n", ",", "\t", ";", " "], k=draw.randint(1, 9)))
                rows.append((f"{i} {cell}.", "no" if i % 3 else "yes"))
            out = io.StringIO()
            writer = csv.writer(
                out, delimiter="\t" if suffix == ".tsv" else ",", lineterminator=draw.choice(["\n", "\r\n"])
            )
            writer.writerows([HEADER, *rows])
            yield Hostile(f"cells {seed}", suffix, _bytes(out.getvalue().encode()), N, exact=True)


def _delimiters() -> Iterator[Hostile]:
    for suffix in (".csv", ".tsv"):
        for name, delimiter in {
            "semicolon": ";",
            "tab": "\t",
            "comma": ",",
            "bar": "|",
            "colon": ":",
            "space": " ",
        }.items():
            text = "".join(
                delimiter.join(row) + "\n"
                for row in [HEADER, *[(f"kettle{i}", y) for i, (_, y) in enumerate(_plain())]]
            )
            known = name not in ("colon", "space")
            yield Hostile(name, suffix, _bytes(text.encode()), N if known else None, exact=known)
    text = "".join(f'"{a}";"{b}"\n' for a, b in [HEADER, *_plain(label=lambda i: f"{i},5")])
    yield Hostile("decimal commas", ".csv", _bytes(text.encode()), None)
    yield Hostile("sep=", ".csv", _bytes(b"sep=;\nsentence;class\na;b\n"), None)


def _labels() -> Iterator[Hostile]:
    forms: dict[str, list[Any]] = {
        "zeros": ["-0.0", "0", "0.0", "1"], "powers": ["1e0", "1", "2"], "huge": ["9" * 400, "1"], "many digits": ["1" * 5000, "2"],
        "far": ["1e999999999", "1"], "near": ["1e-999999999", "0"], "zero far": ["0e999999", "1"], "nan": ["nan", "1", "0"],
        "inf": ["-inf", "1", "0"], "hex": ["0x1", "1"], "thousands": ["1,000", "2,000"], "underscore": ["1_0", "10"],
        "wide": ["\uff11", "1"], "truth": ["True", "true", "TRUE"], "forms": ["caf\u00e9", "cafe\u0301", "tea"], "blank": [" ", "a"],
        "one": ["same"], "space": [" a", "a ", "b"], "float": ["0.1", "0.10", "2"], "formula": ["=1+1", "@x"],
    }  # fmt: skip
    for name, values in forms.items():
        rows = _plain(label=partial(_cycled, values))
        yield Hostile(f"labels {name}", ".jsonl", _bytes(_text(rows, ".jsonl").encode()), N)
        if "," not in values[0]:
            yield Hostile(
                f"labels {name}", ".csv", _bytes(_text(rows, ".csv").encode()), N, more=("task.kind=classification",)
            )


def _objects() -> Iterator[Hostile]:
    good = _text(_plain(), ".jsonl")
    for name, line in {
        "deep": '{"sentence": ' + "[" * 100_000, "nested": '{"sentence": {"a": 1}, "class": "no"}', "list": '["a", "b"]',
        "number": "7", "null": "null", "null text": '{"sentence": null, "class": "no"}', "twice": '{"sentence": "a", "class": "no", "class": "yes"}',
        "nested twice": '{"sentence": "a", "class": "no", "x": {"y": 1, "y": 2}}', "NaN": '{"sentence": "a", "class": NaN}',
        "huge": '{"sentence": "a", "class": ' + "9" * 6000 + "}", "half pair": '{"sentence": "\\ud800", "class": "no"}',
        "half pair label": '{"sentence": "a", "class": "\\udfff"}', "two": '{"sentence": "a", "class": "no"} {"sentence": "b", "class": "no"}',
        "comment": "// no", "single quotes": "{'sentence': 'a', 'class': 'no'}", "cut": '{"sentence": "a", "cla',
        "control": '{"sentence": "a\x01", "class": "no"}', "many keys": json.dumps({f"k{i}": 1 for i in range(5000)}),
    }.items():  # fmt: skip
        extra = name == "nested twice"
        yield Hostile(
            f"object {name}", ".jsonl", _bytes((good + line + "\n").encode()), N + 1 if extra else None, exact=extra
        )
    yield Hostile(
        "an array", ".jsonl", _bytes(json.dumps([{"sentence": "a", "class": "b"}] * N, indent=1).encode()), None
    )
    yield Hostile("blank lines", ".jsonl", _bytes(good.replace("\n", "\n\n \n").encode()), N, exact=True)


def _headers() -> Iterator[Hostile]:
    for suffix in (".csv", ".tsv", ".jsonl"):
        yield Hostile("empty", suffix, _bytes(b""), None)
        yield Hostile("one line end", suffix, _bytes(b"\n"), None)
        yield Hostile("spaces", suffix, _bytes(b"  \n \n"), None)
    body = _text(_plain(), ".csv").partition("\n")[2]
    for name, header in {
        "alone": None, "twice the column": "class,class", "another": "text,label", "case": "Sentence,Class", "spaces": " sentence, class",
        "quoted": '"sentence","class"', "more": "sentence,class,", "less": "sentence", "bare": '"sentence,class', "none": "",
    }.items():  # fmt: skip
        text = "sentence,class\n" if header is None else f"{header}\n{body}"
        yield Hostile(f"header {name}", ".csv", _bytes(text.encode()), N, exact=name == "quoted")
    yield Hostile("no last line end", ".csv", _bytes(_text(_plain(), ".csv").rstrip("\n").encode()), N, exact=True)
    yield Hostile("blank lines", ".csv", _bytes(_text(_plain(), ".csv").replace("\n", "\n\n").encode()), N, exact=True)
    again = _text(_plain(), ".csv")
    yield Hostile("header again", ".csv", _bytes((again + again).encode()), None)


def _long() -> Iterator[Hostile]:
    word = "kettle " * 30_000
    for suffix in (".csv", ".tsv", ".jsonl"):
        rows = [(word if i == 3 else text, label) for i, (text, label) in enumerate(_plain())]
        yield Hostile("long text", suffix, _bytes(_text(rows, suffix).encode()), N, exact=True)
        rows = [(text, word if i == 3 else label) for i, (text, label) in enumerate(_plain())]
        yield Hostile("long label", suffix, _bytes(_text(rows, suffix).encode()), N)
        yield Hostile("long line", suffix, _bytes(b"x" * 200_000), None)
    names = [f"c{i}" for i in range(5000)]
    wide = ",".join([*HEADER, *names]) + "\n" + "".join(",".join([*row, *names]) + "\n" for row in _plain())
    yield Hostile("wide", ".csv", _bytes(wide.encode()), N, exact=True)
    yield Hostile("wide names", ".csv", _bytes(wide.replace("sentence", "text", 1).encode()), None)


def _places() -> Iterator[Hostile]:
    def linked(target: str) -> Callable[[Path], Any]:
        return lambda path: path.symlink_to(target)

    for suffix in (".csv", ".parquet"):
        yield Hostile("a folder", suffix, Path.mkdir, None)
        yield Hostile("a pipe", suffix, os.mkfifo, None)
        yield Hostile("a circle", suffix, lambda path: path.symlink_to(path), None)
        yield Hostile("a link to nothing", suffix, linked("nowhere"), None)
        yield Hostile("a link to zeros", suffix, linked("/dev/zero"), None)
        yield Hostile("nothing", suffix, lambda _: None, None)
    yield Hostile("another suffix", ".csv.gz", _bytes(gzip.compress(b"sentence,class\n", mtime=0)), None)
    yield Hostile("a text", ".parquet", _bytes(_text(_plain(), ".csv").encode()), None)


def _table(**columns: Any) -> pa.Table:
    return pa.table({"sentence": [text for text, _ in _plain()], "class": [label for _, label in _plain()]} | columns)


def _broken_parquet() -> Iterator[Hostile]:
    into = io.BytesIO()
    pq.write_table(_table(), into)
    whole = into.getvalue()
    for share in (0.0, 0.1, 0.5, 0.9, 0.99):
        yield Hostile(f"cut at {share}", ".parquet", _bytes(whole[: int(share * len(whole))]), None)
    for seed in range(20):
        draw, spoilt = random.Random(seed), bytearray(whole)
        for _ in range(draw.randint(1, 8)):
            spoilt[draw.randrange(len(spoilt))] ^= 1 << draw.randrange(8)
        yield Hostile(f"flipped {seed}", ".parquet", _bytes(bytes(spoilt)), None)
    yield Hostile("no magic", ".parquet", _bytes(b"\0" * len(whole)), None)
    yield Hostile("magic alone", ".parquet", _bytes(b"PAR1PAR1"), None)


def _odd_parquet() -> Iterator[Hostile]:
    far, ones = [2**62 + i for i in range(N)], [i % 3 for i in range(N)]
    columns: dict[str, tuple[pa.Array, bool]] = {
        "timestamp": (pa.array(far, pa.timestamp("us")), False),
        "zone": (pa.array(far, pa.timestamp("us", tz="Nowhere/City")), False),
        "date": (pa.array([2**30 + i for i in range(N)], pa.date32()), False),
        "duration": (pa.array(far, pa.duration("s")), False),
        "binary": (pa.array([b"\xff%d" % i for i in ones]), False),
        "list": (pa.array([[i] for i in ones]), False),
        "struct": (pa.array([{"class": i} for i in ones]), False),
        "null": (pa.nulls(N), False),
        "some null": (pa.array([None if i == 1 else i for i in ones]), False),
        "dictionary": (pa.array(map(str, ones)).dictionary_encode(), True),
        "dictionary of numbers": (pa.array(ones).dictionary_encode(), True),
        "decimal": (pa.array([Decimal(i) / 4 for i in ones]), True),
        "half": (pa.array([np.float16(i) for i in ones], pa.float16()), True),
        "single": (pa.array([i / 3 for i in ones], pa.float32()), True),
        "unsigned": (pa.array([2**63 + i for i in ones], pa.uint64()), True),
        "beyond": (pa.array([2.0**60 + i for i in ones]), False),
        "not finite": (pa.array([[0.0, float("nan"), float("inf")][i] for i in ones]), False),
        "truth": (pa.array([bool(i) for i in ones]), True),
        "view": (pa.array(map(str, ones), pa.string_view()), True),
        "large": (pa.array(map(str, ones), pa.large_string()), True),
    }
    for name, (column, exact) in columns.items():
        table = _table(**{"class": column})
        yield Hostile(f"class {name}", ".parquet", partial(pq.write_table, table), N, exact)
    invalid = pa.Array.from_buffers(pa.string(), N, pa.array([b"\xff\xfe"] * N).buffers())
    several = pa.Table.from_arrays([pa.array(ones)] * 3, names=["sentence", "class", "class"])
    for name, table in {
        "no columns": pa.table({}), "no rows": _table().slice(0, 0), "not utf-8": _table(sentence=invalid),
        "texts are numbers": _table(sentence=pa.array(ones)), "twice the column": several,
    }.items():  # fmt: skip
        yield Hostile(name, ".parquet", partial(pq.write_table, table), None)
    grouped = lambda path: pq.write_table(_table(), path, row_group_size=7, compression="zstd")  # noqa: E731
    yield Hostile("many groups", ".parquet", grouped, N, exact=True)
