"""Before training: the classes with their counts, the share of the texts that is cut, and splits of few rows."""

from typing import Any

import numpy as np
import pytest

from loralab.runs.data_lines import cut_warning, few_rows_warning, labels_line
from loralab.tasks import RawTask, Texts


def task(labels: Any, names: tuple[str, ...] | None) -> RawTask[Any]:
    texts = Texts([("a",)] * len(labels), np.array(labels), np.arange(len(labels)))
    return RawTask("t", "regression" if names is None else "classification", names, {"train": texts}, ("accuracy",))


def test_classes_are_named_by_their_counts() -> None:
    assert labels_line(task([0, 1, 1, 1, 2], ("ham", "spam", "other"))) == "classes: spam 3, ham 1, other 1"
    assert labels_line(task([1, 1], ("never", "always"))) == "classes: always 2, never 0"


def test_of_many_classes_the_most_and_the_least_frequent_are_named() -> None:
    labels = [i for i in range(20) for _ in range(20 - i)]
    shown = labels_line(task(labels, tuple(f"class {i}" for i in range(20))))
    assert shown == "20 classes, from class 0 20 rows to class 19 1"


def test_a_class_named_by_a_user_cannot_move_the_cursor() -> None:
    shown = labels_line(task([0, 1], ("a\x1b[2J", "b" * 1000)))
    assert shown is not None and "\x1b" not in shown and len(shown) < 120


def test_numbers_have_a_range_and_a_mean() -> None:
    assert labels_line(task(np.array([0, 2.5, 5], dtype=np.float32), None)) == "labels: 0 to 5, mean 2.5"


@pytest.mark.parametrize(("cut", "warns"), [(0, False), (5, False), (6, True), (61, True)])
def test_texts_that_are_cut_are_told_above_5_per_cent(cut: int, warns: bool) -> None:
    whole = np.array([200] * cut + [64] * (100 - cut))
    wanted = f"train.max_length=64 cuts {cut}% of the training texts; 200 would cut 1%"
    assert cut_warning(whole, 64) == (wanted if warns else None)


def test_the_length_named_cuts_at_most_one_per_cent() -> None:
    whole = np.random.default_rng(0).integers(10, 500, size=1000)
    shown = cut_warning(whole, 64)
    assert shown is not None
    named = int(shown.split("; ")[1].split()[0])
    assert (whole > named).mean() <= 0.01 < (whole > named - 5).mean()


def test_a_held_out_split_of_few_rows_is_told() -> None:
    wanted = "the validation split has 2 rows, so one answer moves accuracy by 50 points"
    assert few_rows_warning({"train": 6, "validation": 2, "test": 100}) == wanted
    assert few_rows_warning({"train": 6, "validation": 50, "test": 100}) is None
