"""task=local on files written here: kinds, class order, splits, and one line for every mistake."""

# ruff: noqa: E501, a case of a table is one line
import json
from collections.abc import Callable
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
            assert classes[int(values[text])].removesuffix(".0") == str(label).strip().removesuffix(".0")


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
