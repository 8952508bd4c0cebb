"""task=pairs on files written here: contexts, targets, splits, and one line for every mistake."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loralab.errors import UserError
from loralab.tasks import Pairs, RawTask

Read = Callable[..., RawTask[Pairs]]
SHARES = {"validation_share": 0.2, "test_share": 0.2, "split_seed": 0}
ROWS = [{"question": f"what is {i}", "passage": f"about {i}", "answer": f"it is {i}"} for i in range(20)]


def _write(path: Path, rows: list[dict[str, Any]]) -> str:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, rows[0], delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return str(path)


def _files(train: str, validation: str | None = None, test: str | None = None) -> dict[str, str | None]:
    return {"train": train, "validation": validation, "test": test}


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_every_kind_of_file_gives_its_pairs_in_fixed_shares(read: Read, tmp_path: Path, suffix: str) -> None:
    file = _write(tmp_path / f"rows.{suffix}", ROWS)
    task = read("pairs", files=_files(file), text=["question"], label="answer", **SHARES)
    assert (task.kind, task.labels, task.metrics) == ("generation", None, ("exact_match",))
    assert {part: len(pairs) for part, pairs in task.splits.items()} == {"train": 12, "validation": 4, "test": 4}
    assert sorted(row for pairs in task.splits.values() for row in pairs.rows) == list(range(20))
    for pairs in task.splits.values():
        assert pairs.databases is None
        assert pairs.contexts == [f"what is {row}" for row in pairs.rows]
        assert pairs.references == [(f"it is {row}",) for row in pairs.rows]


def test_two_columns_are_joined_by_a_line_break_in_their_order(read: Read, tmp_path: Path) -> None:
    file = _write(tmp_path / "rows.jsonl", ROWS)
    task = read("pairs", files=_files(file), text=["passage", "question"], label="answer", **SHARES)
    assert task.splits["test"].contexts == [f"about {row}\nwhat is {row}" for row in task.splits["test"].rows]


def test_files_of_their_own_are_the_splits(read: Read, tmp_path: Path) -> None:
    parts = {part: _write(tmp_path / f"{part}.jsonl", ROWS[:size]) for part, size in (("a", 9), ("b", 3), ("c", 2))}
    task = read("pairs", files=_files(*parts.values()), text=["question"], label="answer")
    assert [len(pairs) for pairs in task.splits.values()] == [9, 3, 2]


def test_rows_with_one_context_stay_in_one_split(read: Read, tmp_path: Path) -> None:
    rows = [{"question": f"q {i % 7}", "answer": f"a {i}"} for i in range(60)]
    file = _write(tmp_path / "rows.csv", rows)
    task = read("pairs", files=_files(file), text=["question"], label="answer", **SHARES)
    seen = [set(pairs.contexts) for pairs in task.splits.values()]
    assert sum(map(len, seen)) == len(set.union(*seen)) == 7


def test_numbers_are_text_as_they_are_written(read: Read, tmp_path: Path) -> None:
    rows = [{"question": i, "answer": i + 0.5} for i in range(10)]
    file = _write(tmp_path / "rows.jsonl", rows)
    task = read("pairs", files=_files(file), text=["question"], label="answer", **SHARES)
    assert task.splits["train"].references == [(f"{row + 0.5}",) for row in task.splits["train"].rows]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("", r"rows\.jsonl, line 3: column 'answer' is empty; every row needs its text"),
        (None, r"rows\.jsonl, line 3: column 'answer' is empty"),
        (" \n", r"rows\.jsonl, line 3: column 'answer' is empty"),
        (float("nan"), r"rows\.jsonl, line 3: column 'answer' is empty"),
        (["a"], r"rows\.jsonl, line 3: column 'answer' holds list \['a'\], not text"),
        (True, r"rows\.jsonl, line 3: column 'answer' holds bool True, not text"),
        ("\ud800", r"rows\.jsonl, line 3: column 'answer' holds half a surrogate pair"),
    ],
)
def test_a_bad_cell_is_named_by_file_and_line(read: Read, tmp_path: Path, cell: Any, message: str) -> None:
    file = _write(tmp_path / "rows.jsonl", [*ROWS[:2], ROWS[2] | {"answer": cell}, *ROWS[3:]])
    with pytest.raises(UserError, match=message):
        read("pairs", files=_files(file), text=["question"], label="answer", **SHARES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": []}, r"task\.text: got \[\]; allowed: one or two text columns"),
        ({"text": ["question", "question"]}, r"task\.text: got \[question, question\]"),
        ({"label": None}, r"task\.label: got null; allowed: a column that is not in task\.text"),
        ({"label": "question"}, r"task\.label: got question; allowed"),
        ({"label": "anwser"}, r"task\.label: .* has no column 'anwser'.*did you mean 'answer'\?"),
        ({"kind": "classification"}, r"task\.kind: got classification; task=pairs generates text"),
        ({"test_share": None}, r"task\.test_share: got None; without task\.files\.test"),
        ({"split_seed": None}, r"task\.split_seed: got null"),
        ({"test_share": 0.01}, r"task\.files\.train: its 20 rows \(20 distinct texts\) leave none for test"),
        ({"revision": "main"}, r"task\.revision: got 'main', but pairs does not come from the hub"),
    ],
)
def test_a_wrong_setting_is_one_line(read: Read, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    settings = {"files": _files(_write(tmp_path / "rows.jsonl", ROWS)), "text": ["question"], "label": "answer"}
    with pytest.raises(UserError, match=message):
        read("pairs", **(settings | SHARES | change))


def test_a_missing_file_is_named(read: Read) -> None:
    with pytest.raises(UserError, match=r"task\.files\.train: task=pairs needs a training file"):
        read("pairs", text=["question"], label="answer", **SHARES)


def test_identity_follows_the_files(tmp_path: Path, identity: Callable[..., dict[str, str]]) -> None:
    settings: dict[str, Any] = {"text": ["question"], "label": "answer"}
    one = identity("pairs", files=_files(_write(tmp_path / "rows.jsonl", ROWS)), **settings)
    other = identity("pairs", files=_files(_write(tmp_path / "more.jsonl", ROWS[:-1])), **settings)
    assert set(one) == {"train"} and one != other
