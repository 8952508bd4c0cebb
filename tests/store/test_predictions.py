"""predictions.parquet: every test example with its row, label and logits; equal logits give equal bytes."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from loralab.store.predictions import packed_correct, unpacked, write_predictions


def test_every_example_is_there_and_bytes_repeat(tmp_path: Path) -> None:
    split = SimpleNamespace(labels=np.array([1, 0, 1]), rows=np.array([7, 2, 9]))
    last = np.arange(6, dtype=np.float32).reshape(3, 2)
    logits = {"last": {"test": last}, "best": {"test": -last}}
    for name in ("one", "two"):
        write_predictions(tmp_path / name, logits, {"test": split})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    table = pd.read_parquet(tmp_path / "one")
    assert table["at"].tolist() == ["last"] * 3 + ["best"] * 3
    assert table["row"].tolist() == [7, 2, 9] * 2
    assert table["label"].tolist() == [1, 0, 1] * 2
    np.testing.assert_array_equal(np.stack(table["logits"][:3].to_list()), last)


def written(path: Path, order: Any, *, at: str = "last", split: str = "test") -> Path:
    """Examples in that order, under that name; the others of the file are right where these are wrong."""
    count = len(order)
    logits = np.random.default_rng(count).normal(size=(count, 3)).astype(np.float32)
    labels = np.where(np.arange(count) % 3 == 0, logits.argmax(axis=1), logits.argmin(axis=1))
    examples = SimpleNamespace(labels=labels[order], rows=10 * np.arange(count)[order])
    opposite = {"best": {"test": -logits[order]}, "last": {"validation": -logits[order]}}
    splits = {"test": examples, "validation": examples}
    write_predictions(path, {**opposite, at: {**opposite.get(at, {}), split: logits[order]}}, splits)
    return path


@pytest.mark.parametrize("count", [1, 8, 13, 500])
def test_what_was_right_comes_back_in_the_order_of_the_sources_rows_however_it_was_written(
    tmp_path: Path, count: int
) -> None:
    shuffled = np.random.default_rng(0).permutation(count)
    text = packed_correct(written(tmp_path / "shuffled.parquet", shuffled))
    assert text == packed_correct(written(tmp_path / "sorted.parquet", np.arange(count)))
    flags = unpacked(text)
    assert flags.dtype == np.bool_ and flags.tolist() == [at % 3 == 0 for at in range(count)]
    assert len(text) <= 4 + count / 4 + 2


def test_without_test_examples_or_without_classes_nothing_was_right_or_wrong(tmp_path: Path) -> None:
    assert packed_correct(written(tmp_path / "validation.parquet", np.arange(5), split="validation")) == ""
    scores = SimpleNamespace(labels=np.array([0.5, -1.0]), rows=np.array([0, 1]))
    write_predictions(
        tmp_path / "regression.parquet", {"last": {"test": np.zeros((2, 1), np.float32)}}, {"test": scores}
    )
    assert packed_correct(tmp_path / "regression.parquet") == ""
