"""GLUE read from a genuine hub cache: every task's columns, labels, metrics and splits."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants

from loralab.tasks import RawTask, hub
from tests.tasks.hub_layout import COLUMNS, COMMIT, snapshot, write_task

Read = Callable[..., RawTask]

METRICS = {
    "cola": ("matthews",), "sst2": ("accuracy",), "mrpc": ("accuracy", "f1"), "stsb": ("pearson", "spearman"),
    "qqp": ("accuracy", "f1"), "mnli": ("accuracy",), "qnli": ("accuracy",), "rte": ("accuracy",),
}  # fmt: skip


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The snapshot folder of an offline hub cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.commit.cache_clear()
    yield snapshot(tmp_path)
    hub.commit.cache_clear()


@pytest.mark.parametrize("name", COLUMNS)
def test_development_sets_are_the_test_and_validation_is_cut_from_train(cache: Path, read: Read, name: str) -> None:
    write_task(cache, name)
    task = read(name, revision="main")
    assert task.metrics == METRICS[name]
    sizes = {"train": 54, "validation": 6, "test": 12} | ({"test_mismatched": 12} if name == "mnli" else {})
    assert {part: len(split) for part, split in task.splits.items()} == sizes
    source = {"train": "train", "validation": "train", "test": "validation", "test_mismatched": "validation_mismatched"}
    if name == "mnli":
        source["test"] = "validation_matched"
    for part, split in task.splits.items():
        for texts, label, row in zip(split.texts, split.labels, split.rows, strict=True):
            assert texts == tuple(f"{name} {source[part]} {column} {row}" for column in COLUMNS[name])
            assert label == (row % 11 / 2 if name == "stsb" else row % (3 if name == "mnli" else 2))
    rows = np.concatenate([task.splits[part].rows for part in ("train", "validation")])
    assert sorted(rows) == list(range(60))
    if name == "stsb":
        assert task.kind == "regression" and task.labels is None and task.splits["train"].labels.dtype == np.float32
    else:
        assert task.labels is not None and len(task.labels) == (3 if name == "mnli" else 2)


def test_class_names_are_in_the_data_sets_order(cache: Path, read: Read) -> None:
    for name, first in (
        ("mnli", "entailment"),
        ("cola", "unacceptable"),
        ("qnli", "entailment"),
        ("mrpc", "not_equivalent"),
    ):
        write_task(cache, name)
        labels = read(name, revision="main").labels
        assert labels is not None and labels[0] == first


def test_validation_is_at_most_2000_rows(cache: Path, read: Read) -> None:
    write_task(cache, "sst2", train=21_000)
    assert len(read("sst2", revision="main").splits["validation"]) == 2_000


def test_training_subsets_leave_validation_and_test_alone(cache: Path, read: Read) -> None:
    write_task(cache, "rte")
    whole, few = read("rte", revision="main"), read("rte", revision=COMMIT, train_rows=10)
    assert len(few.splits["train"]) == 10 and set(few.splits["train"].texts) < set(whole.splits["train"].texts)
    assert few.splits["validation"].texts == whole.splits["validation"].texts


def test_a_null_question_is_an_empty_one(cache: Path, read: Read) -> None:
    write_task(cache, "qqp")
    path = cache / "qqp" / "validation-00000-of-00001.parquet"
    pq.write_table(pa.table({"question1": ["a", "b"], "question2": ["c", None], "label": [0, 1]}), path)
    assert read("qqp", revision="main").splits["test"].texts == [("a", "c"), ("b", "")]


@pytest.mark.usefixtures("cache")
def test_identity_is_the_commit(identity: Callable[..., dict[str, str]]) -> None:
    assert identity("rte", revision="main") == identity("mnli", revision="main") == {"data": COMMIT}


def test_the_revision_must_be_named(read: Read) -> None:
    with pytest.raises(ValueError, match=r"task\.revision: got null; rte comes from the hub"):
        read("rte")
