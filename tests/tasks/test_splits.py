"""Laws of splitting: fixed, disjoint by text, nested."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from loralab.errors import UserError
from loralab.tasks.splits import Pairs, RawTask, Texts, hold_out, order, subset


def _task(texts: list[str]) -> RawTask:
    rows = np.arange(len(texts), dtype=np.int64)
    return RawTask(
        "t", "classification", ("a", "b"), {"train": Texts([(t,) for t in texts], rows % 2, rows)}, ("accuracy",)
    )


def test_order_is_a_permutation_that_never_changes() -> None:
    assert sorted(order(1000, 0)) == list(range(1000))
    assert hashlib.sha256(order(1000, 7).tobytes()).hexdigest()[:16] == "8a55ec7c8bae1580"


def test_seeds_give_different_orders() -> None:
    assert not np.array_equal(order(100, 0), order(100, 1))


@pytest.mark.parametrize("sizes", [[20], [20, 30], [0, 10]])
def test_held_out_parts_cover_every_row_once_and_share_no_text(sizes: list[int]) -> None:
    texts = [(str(i % 70),) for i in range(100)]
    parts = hold_out(texts, sizes, seed=3)
    assert sorted(np.concatenate(parts)) == list(range(100))
    seen = [{texts[i] for i in part} for part in parts]
    assert sum(map(len, seen)) == len(set.union(*seen)) == 70
    assert all(size <= len(part) <= size + 1 for size, part in zip(sizes, parts, strict=False))


def test_smaller_training_sets_are_part_of_larger_ones() -> None:
    task = _task([str(i) for i in range(50)])
    few, more = (subset(task, n).splits["train"] for n in (5, 20))
    assert few.texts == more.texts[:5]
    assert np.array_equal(few.labels, more.labels[:5])
    assert [f"{row}" for row in more.rows] == [text for (text,) in more.texts]
    assert subset(task, None) == task


def test_eval_rows_keeps_a_part_of_every_split_that_is_evaluated_and_all_of_train() -> None:
    few = Texts([(str(i),) for i in range(9)], np.arange(9) % 2, np.arange(9))
    task = _task([str(i) for i in range(50)])
    task = replace(task, splits={**task.splits, "validation": few, "test": few.take(np.arange(5))})
    kept = subset(task, None, 3).splits
    assert {split: len(rows) for split, rows in kept.items()} == {"train": 50, "validation": 3, "test": 3}
    assert kept["validation"].texts == subset(task, None, 5).splits["validation"].texts[:3]
    with pytest.raises(UserError, match=r"task\.eval_rows: got 6; t has 5 test rows, null keeps all"):
        subset(task, None, 6)


@pytest.mark.parametrize("rows", [0, -1, 51])
def test_train_rows_out_of_range_names_what_there_is(rows: int) -> None:
    with pytest.raises(UserError, match=rf"task\.train_rows: got {rows}; t has 50 training rows"):
        subset(_task([str(i) for i in range(50)]), rows)


@pytest.mark.parametrize("databases", [None, [f"script {i}" for i in range(50)]])
def test_pairs_are_taken_whole_and_their_subsets_are_nested(databases: list[str] | None) -> None:
    rows = np.arange(50, dtype=np.int64)
    pairs = Pairs([f"c{i}" for i in rows], [(f"t{i}", "other") for i in rows], rows, databases)
    task = RawTask("t", "generation", None, {"train": pairs, "test": pairs}, ("exact_match",))
    few, more = subset(task, 10, 5), subset(task, 20)
    assert len(few.splits["train"]) == 10 and len(few.splits["test"]) == 5 and len(more.splits["test"]) == 50
    assert few.splits["train"].contexts == more.splits["train"].contexts[:10]
    for part in few.splits.values():
        assert part.contexts == [f"c{i}" for i in part.rows]
        assert part.references == [(f"t{i}", "other") for i in part.rows]
        assert part.databases == (None if databases is None else [f"script {i}" for i in part.rows])
