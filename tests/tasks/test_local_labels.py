"""task=local on files written here: kinds, class order, splits, and one line for every mistake."""

# ruff: noqa: E501, a case of a table is one line
import itertools
import json
import unicodedata
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loralab.errors import UserError
from loralab.tasks import RawTask

Read = Callable[..., RawTask]
Write = Callable[..., dict[str, str | None]]
SHARES = {"validation_share": 0.2, "test_share": 0.2, "split_seed": 0}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes json lines of (text, label) and returns the `files` node."""

    def write(train: Any, validation: Any = None, test: Any = None) -> dict[str, str | None]:
        files: dict[str, str | None] = {}
        for part, rows in (("train", train), ("validation", validation), ("test", test)):
            path = tmp_path / f"{part}.jsonl"
            files[part] = None if rows is None else str(path)
            if rows is not None:
                path.write_text("".join(json.dumps({"text": t, "label": n}) + "\n" for t, n in rows), encoding="utf-8")
        return files

    return write


def _rows(labels: list[Any], n: int = 20) -> list[tuple[str, Any]]:
    return [(f"text {i}", labels[i % len(labels)]) for i in range(n)]


@pytest.mark.parametrize(
    ("labels", "kind", "classes"),
    [
        (["pos", "neg"], "classification", ("neg", "pos")),
        ([10, 2, 1], "classification", ("1", "2", "10")),
        (["10", "2", " 1 "], "classification", ("1", "2", "10")),
        ([1.0, 0.0], "classification", ("0", "1")),
        ([True, False], "classification", ("False", "True")),
        (["007", "7"], "classification", ("007", "7")),
        (["-0.0", "0.0", "1.0", "0"], "classification", ("0", "1")),
        ([-0.0, 0, 1, 1.0, "1", "1e0", "+1", "1."], "classification", ("0", "1")),
        (["01", "01.0", "1"], "classification", ("01", "1")),
        ([9007199254740993, "9007199254740992"], "classification", ("9007199254740992", "9007199254740993")),
        ([True, 1, "true"], "classification", ("1", "True", "true")),
        (["caf\u00e9", "cafe\u0301 ", "tea"], "classification", ("caf\u00e9", "tea")),
        (["b\u200b", "b", "\ufeffb", "a"], "classification", ("a", "b")),
        (["1_0", "\uff11", "1e-9999999"], "classification", ("1_0", "1e-9999999", "\uff11")),
        (["nan", "inf", "x"], "classification", ("inf", "nan", "x")),
        (["3,5", "high"], "classification", ("3,5", "high")),
        ([0.5, 1, 2], "regression", None),
        (["-1.5", "2e-3"], "regression", None),
    ],
)
def test_kind_and_classes_are_told_from_the_labels(
    read: Read, write: Write, labels: list[Any], kind: str, classes: tuple[str, ...] | None
) -> None:
    task = read("local", files=write(_rows(labels)), text=["text"], label="label", **SHARES)
    assert (task.kind, task.labels) == (kind, classes)
    values = {text: value for s in task.splits.values() for (text,), value in zip(s.texts, s.labels, strict=True)}
    for text, label in _rows(labels):
        if classes is None:
            assert values[text] == np.float32(label)
        else:
            named = classes[int(values[text])]
            assert named == unicodedata.normalize("NFC", str(label).strip(" \u200b\ufeff")).removesuffix(".0") or float(
                named
            ) == float(label)


def test_a_whole_number_is_one_class_in_every_kind_of_file(read: Read, tmp_path: Path) -> None:
    texts, values = [f"text {i}" for i in range(6)], [0, 1, 2, 1, 0, 2]
    columns: dict[str, pa.Array] = {
        "int": pa.array(values, pa.int8()),
        "float": pa.array(map(float, values)),
        "half": pa.array([np.float16(v) for v in values], pa.float16()),
        "decimal": pa.array([Decimal(v) for v in values], pa.decimal128(5, 2)),
        "dictionary": pa.array([str(v) for v in values]).dictionary_encode(),
        "text": pa.array([f"{v}.0" for v in values], pa.large_string()),
    }
    for name, column in columns.items():
        pq.write_table(pa.table({"text": texts, "label": column}), tmp_path / f"{name}.parquet")
    (tmp_path / "a.csv").write_text(
        "text,label\n" + "".join(f"{t},{v}.0\n" for t, v in zip(texts, values, strict=True))
    )
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"text": t, "label": v}) + "\n" for t, v in zip(texts, values, strict=True))
    )
    files = [tmp_path / "a.csv", tmp_path / "a.jsonl", *(tmp_path / f"{name}.parquet" for name in columns)]
    for train, test in [*itertools.pairwise(files), (files[-1], files[0])]:
        given = {"train": str(train), "validation": str(train), "test": str(test)}
        task = read("local", files=given, text=["text"], label="label")
        assert task.labels == ("0", "1", "2")
        assert all(split.labels.tolist() == values for split in task.splits.values())


def test_a_float_has_the_digits_of_its_own_precision(read: Read, tmp_path: Path) -> None:
    scores = pa.array([0.1, 0.2, 0.7], pa.float32())
    pq.write_table(pa.table({"text": ["a", "b", "c"], "label": scores}), tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("text,label\na,0.2\nb,0.1\n")
    given = {
        "train": str(tmp_path / "a.parquet"),
        "validation": str(tmp_path / "a.csv"),
        "test": str(tmp_path / "a.csv"),
    }
    task = read("local", files=given, text=["text"], label="label", kind="classification")
    assert task.labels == ("0.1", "0.2", "0.7") and task.splits["test"].labels.tolist() == [1, 0]
    scored = read("local", files=given, text=["text"], label="label")
    assert scored.splits["train"].labels.tolist() == scores.to_pylist()


def test_kind_can_be_set_against_the_labels_look(read: Read, write: Write) -> None:
    settings = {"text": ["text"], "label": "label", **SHARES}
    stars = read("local", files=write(_rows([1, 2, 5])), kind="regression", **settings)
    assert stars.labels is None and stars.splits["train"].labels.dtype == np.float32
    versions = read("local", files=write(_rows(["1.5", "2.5"])), kind="classification", **settings)
    assert versions.labels == ("1.5", "2.5")


def test_csv_and_parquet_and_pairs_read_alike(read: Read, tmp_path: Path) -> None:
    a, b, labels = [f"a{i}" for i in range(30)], [f"b{i}" for i in range(30)], [i % 3 for i in range(30)]
    (tmp_path / "d.csv").write_text("a,b,y\n" + "".join(f"{x},{z},{y}\n" for x, z, y in zip(a, b, labels, strict=True)))
    pq.write_table(pa.table({"a": a, "b": b, "y": labels}), tmp_path / "d.parquet")
    one, two = (
        read(
            "local",
            files={"train": str(tmp_path / f), "validation": None, "test": None},
            text=["a", "b"],
            label="y",
            **SHARES,
        )
        for f in ("d.csv", "d.parquet")
    )
    for part in ("train", "validation", "test"):
        assert one.splits[part].texts == two.splits[part].texts
        assert np.array_equal(one.splits[part].labels, two.splits[part].labels)
    assert one.splits["train"].texts[0][0][1:] == one.splits["train"].texts[0][1][1:]


def test_shares_cut_disjoint_parts_and_lose_no_row(read: Read, write: Write) -> None:
    rows = [(f"text {i % 80}", i % 2) for i in range(100)]
    task = read("local", files=write(rows), text=["text"], label="label", **SHARES)
    assert list(task.splits) == ["train", "validation", "test"]
    assert sorted(np.concatenate([s.rows for s in task.splits.values()])) == list(range(100))
    seen = [set(split.texts) for split in task.splits.values()]
    assert sum(map(len, seen)) == len(set.union(*seen)) == 80
    assert [len(task.splits[part]) for part in ("validation", "test")] == pytest.approx([20, 20], abs=1)
    again = read("local", files=write(rows), text=["text"], label="label", **SHARES)
    other = read("local", files=write(rows), text=["text"], label="label", **(SHARES | {"split_seed": 1}))
    assert again.splits["test"].texts == task.splits["test"].texts != other.splits["test"].texts


def test_given_files_are_taken_whole_and_only_the_missing_split_is_cut(read: Read, write: Write) -> None:
    files = write(_rows(["a", "b"]), test=[("other", "b"), ("text 0", "a")])
    task = read("local", files=files, text=["text"], label="label", **(SHARES | {"test_share": None}))
    assert [len(task.splits[part]) for part in ("train", "validation", "test")] == [16, 4, 2]
    assert task.splits["test"].texts == [("other",), ("text 0",)] and task.splits["test"].labels.tolist() == [1, 0]
    files = write(_rows(["a", "b"]), validation=[("v", "a")], test=[("w", "b")])
    everything = read("local", files=files, text=["text"], label="label")
    assert everything.splits["train"].texts == [(text,) for text, _ in _rows(["a", "b"])]


def test_identity_is_the_files_contents(identity: Callable[..., dict[str, str]], write: Write) -> None:
    first = identity("local", files=write(_rows(["a", "b"]), test=[("t", "a")]))
    assert set(first) == {"train", "test"}
    assert identity("local", files=write(_rows(["a", "b"]), test=[("t", "a")])) == first
    changed = identity("local", files=write(_rows(["a", "b"]), test=[("t", "b")]))
    assert changed["train"] == first["train"] and changed["test"] != first["test"]


GOOD = [("a", "x"), ("b", "y"), ("c", "x"), ("d", "y")]
SCORES = [("a", 0.5), ("b", 1), ("c", 2.5)]


@pytest.mark.parametrize(
    ("parts", "settings", "message"),
    [
        ([GOOD, GOOD, [*GOOD, ("e", "z")]], {}, r"test\.jsonl, line 5: unknown label 'z' in column 'label'; labels of \S*train\.jsonl: x, y"),
        ([GOOD, [("e", "X")], GOOD], {}, r"validation\.jsonl, line 1: unknown label 'X' in column 'label'"),
        ([[*GOOD, ("e", "x"), ("  ", "x")], GOOD, GOOD], {}, r"train\.jsonl, line 6: column 'text' is empty"),
        ([[*GOOD, (None, "x")], GOOD, GOOD], {}, r"train\.jsonl, line 5: column 'text' is empty"),
        ([[*GOOD, (float("nan"), "x")], GOOD, GOOD], {}, r"train\.jsonl, line 5: column 'text' is empty"),
        ([[*GOOD, (7, "x")], GOOD, GOOD], {}, r"train\.jsonl, line 5: column 'text' holds int 7, not text"),
        ([[*GOOD, ("e", None)], GOOD, GOOD], {}, r"train\.jsonl, line 5: column 'label' is empty"),
        ([[("a", 1), ("b", 0), ("c", "NaN")], GOOD, GOOD], {}, r"train\.jsonl, line 3: label 'NaN' in column 'label' is not a number, and other labels are; fix the row, or"),
        ([[("a", 1), ("b", float("inf"))], GOOD, GOOD], {}, r"train\.jsonl, line 2: label 'inf' in column 'label' is not a number, and other labels are"),
        ([[("a", "1"), ("b", "3,5")], GOOD, GOOD], {}, r"train\.jsonl, line 2: label '3,5' in column 'label' has a comma: write 3\.5, or 35 if the comma separates"),
        ([[("a", "1.5"), ("b", "1.50")], GOOD, GOOD], {"kind": "classification"}, r"task\.label: .* has the labels '1\.5' and '1\.50', which are one number"),
        ([[("a", 1), ("b", 2.0**53)], GOOD, GOOD], {}, r"train\.jsonl, line 2: label 9007199254740992\.0 in column 'label' is a float beyond 2\^53"),
        ([[("a", "3,5"), ("b", "1")], GOOD, GOOD], {"kind": "regression"}, r"line 1: label '3,5' .* the task is regression; write 3\.5, or set"),
        ([[*GOOD, ("e", "\u200b ")], GOOD, GOOD], {}, r"train\.jsonl, line 5: column 'label' is empty"),
        ([[*GOOD, ("e", "\ud800")], GOOD, GOOD], {}, r"train\.jsonl, line 5: column 'label' holds half a surrogate pair"),
        ([GOOD, GOOD, [("e", "\x1b" + "z" * 200_000)]], {}, r"test\.jsonl, line 1: unknown label '\\x1bz+\.\.\.z+' in"),
        ([[*GOOD, ("e", ["x"])], GOOD, GOOD], {}, r"train\.jsonl, line 5: column 'label' holds list \['x'\], not a label"),
        ([[("a", "x"), ("b", "x")], GOOD, GOOD], {}, r"task\.label: every row of \S*train\.jsonl has the label 'x'; at least two"),
        ([[*SCORES, ("d", "high")], SCORES, SCORES], {}, r"train\.jsonl, line 4: label 'high' in column 'label' is not a finite number"),
        ([SCORES, SCORES, [("d", "inf")]], {}, r"test\.jsonl, line 1: label 'inf' in column 'label' is not a finite number"),
        ([GOOD, GOOD, GOOD], {"kind": "regression"}, r"train\.jsonl, line 1: label 'x' in column 'label' is not a finite number"),
        ([_rows(list(range(1001)), 1001), GOOD, GOOD], {}, r"task\.label: column 'label' of \S*train\.jsonl has 1001 distinct labels"),
        ([GOOD, GOOD, GOOD], {"text": []}, r"task\.text: got \[\]; allowed: one or two text columns"),
        ([GOOD, GOOD, GOOD], {"text": ["text", "text"]}, r"task\.text: got \[text, text\]; allowed"),
        ([GOOD, GOOD, GOOD], {"text": ["sentence"]}, r"task\.text: \S*train\.jsonl, line 1 has no column 'sentence'; its columns: text, label"),
        ([GOOD, GOOD, GOOD], {"label": None}, r"task\.label: got null; allowed"),
        ([GOOD, GOOD, GOOD], {"label": "text"}, r"task\.label: got text; allowed"),
        ([None, GOOD, GOOD], {}, r"task\.files\.train: task=local needs a training file"),
        ([GOOD, None, GOOD], {}, r"task\.validation_share: got None; without task\.files\.validation it must be"),
        ([GOOD, None, GOOD], {"validation_share": 0.5}, r"task\.split_seed: got null"),
        ([GOOD, None, GOOD], {"validation_share": 0.01, "split_seed": 0}, r"task\.files\.train: its 4 rows \(4 distinct texts\) leave none for validation at task\.validation_share=0\.01"),
        ([GOOD, GOOD, GOOD], {"revision": "main"}, r"task\.revision: got 'main', but local does not come from the hub"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_that_says_where(
    read: Read, write: Write, parts: list[Any], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as raised:
        read("local", **({"files": write(*parts), "text": ["text"], "label": "label"} | settings))
    assert "\n" not in str(raised.value)
