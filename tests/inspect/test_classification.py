"""A classifier's measures are scikit-learn's, and by hand where it has none; what does not exist is None."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import brier_score_loss, classification_report, log_loss, roc_auc_score

from loralab.inspect.classification import BINS, MATRIX, classified, lines

NAMES = ("ant", "bee", "cat", "dog")


def drawn(rows: int, classes: int, *, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
    generator = np.random.default_rng(seed)
    p = generator.dirichlet(np.ones(classes), rows)
    return np.array([generator.choice(classes, p=row) for row in p]), p


def test_each_class_and_the_means_are_scikit_learns() -> None:
    truth, p = drawn(300, 4)
    found = classified(NAMES, truth, p)
    report = classification_report(truth, p.argmax(axis=1), target_names=NAMES, output_dict=True)
    for at, each in enumerate(found.classes):
        theirs = report[each.name]
        assert (each.precision, each.recall, each.f1, each.support) == pytest.approx(
            (theirs["precision"], theirs["recall"], theirs["f1-score"], theirs["support"])
        )
        assert each.auroc == pytest.approx(roc_auc_score(truth == at, p[:, at]))
        assert each.predicted == (p.argmax(axis=1) == at).sum()
    assert found.scores["accuracy"] == report["accuracy"]
    assert found.scores["macro_f1"] == pytest.approx(report["macro avg"]["f1-score"])
    assert found.scores["auroc"] == pytest.approx(roc_auc_score(truth, p, multi_class="ovr"))
    assert found.scores["loss"] == pytest.approx(log_loss(truth, p))
    assert found.positive is None and found.confusion.sum() == 300


def test_of_two_classes_the_second_is_positive() -> None:
    truth, p = drawn(200, 2)
    found = classified(("ham", "spam"), truth, p)
    assert found.positive == "spam" and found.scores["auroc"] == pytest.approx(roc_auc_score(truth, p[:, 1]))
    assert found.scores["brier"] == pytest.approx(2 * brier_score_loss(truth, p[:, 1]))
    assert "positive class: spam (f1, precision, recall and auroc are its)" in lines(found)


def test_a_class_without_a_row_has_no_recall_and_no_area() -> None:
    p = np.array([[0.7, 0.2, 0.1, 0.0], [0.6, 0.3, 0.1, 0.0], [0.1, 0.2, 0.7, 0.0]])
    found = classified(NAMES, np.array([0, 1, 1]), p)
    by_name = {each.name: each for each in found.classes}
    assert (by_name["cat"].precision, by_name["cat"].recall, by_name["cat"].auroc) == (0.0, None, None)
    assert (by_name["dog"].precision, by_name["dog"].recall, by_name["dog"].f1) == (None, None, None)
    assert by_name["bee"].recall == 0.0 and found.majority == pytest.approx(2 / 3)
    assert ["dog", *"----", "0", "0"] in [line.split() for line in lines(found)]
    alone = classified(NAMES, np.array([1, 1, 1]), p)
    assert alone.scores["auroc"] is None


def test_probabilities_that_are_true_are_calibrated_and_overconfident_ones_are_off_by_the_excess() -> None:
    generator = np.random.default_rng(0)
    confidence = generator.uniform(0.5, 1, 100_000)
    p = np.stack([1 - confidence, confidence], axis=1)
    truth = (generator.random(len(p)) < confidence).astype(int)
    found = classified(("no", "yes"), truth, p)
    assert found.ece < 0.006 and sum(each.rows for each in found.bins) == len(p)
    assert all(each.low < each.confidence <= each.high for each in found.bins)
    assert len(found.bins) <= BINS // 2 + 1
    certain = np.tile([0.0, 1.0], (100, 1))
    assert classified(("no", "yes"), (np.arange(100) < 70).astype(int), certain).ece == pytest.approx(0.3)


def test_many_classes_are_shown_by_their_largest_confusions() -> None:
    truth, p = drawn(500, MATRIX + 1)
    names = [f"class {at}" for at in range(MATRIX + 1)]
    shown = "\n".join(lines(found := classified(names, truth, p)))
    off = found.confusion - np.diag(np.diag(found.confusion))
    t, guess = np.unravel_index(off.argmax(), off.shape)
    first = shown.split("most frequent confusions")[1].splitlines()[1]
    assert first.split() == ["class", str(t), "class", str(guess), str(off.max())]
    assert "confusion matrix" in "\n".join(lines(classified(NAMES, *drawn(50, 4))))
