"""Metrics equal scikit-learn's and scipy's, and are null where they are undefined."""

import numpy as np
import numpy.typing as npt
import pytest

from loralab.errors import UserError
from loralab.tasks import METRICS, RawTask, better, choose, score


def _logits(classes: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.float64]:
    logits: npt.NDArray[np.float64] = np.eye(count)[classes] + 0.1
    return logits


@pytest.mark.parametrize("count", [2, 3, 6])
def test_classification_equals_scikit_learn(count: int) -> None:
    from sklearn import metrics as oracle

    rng = np.random.default_rng(count)
    labels = rng.integers(0, count, 200)
    guesses = np.where(rng.random(200) < 0.6, labels, rng.integers(0, count, 200))
    ours = score(("accuracy", "macro_f1", "matthews"), _logits(guesses, count), labels)
    assert ours["accuracy"] == pytest.approx(oracle.accuracy_score(labels, guesses), abs=1e-12)
    assert ours["macro_f1"] == oracle.f1_score(labels, guesses, average="macro")
    assert ours["matthews"] == pytest.approx(oracle.matthews_corrcoef(labels, guesses), abs=1e-12)
    if count == 2:
        assert score(("f1",), _logits(guesses, 2), labels)["f1"] == oracle.f1_score(labels, guesses)


@pytest.mark.parametrize("decimals", [1, 8])
def test_regression_equals_scipy_with_and_without_ties(decimals: int) -> None:
    from scipy import stats

    rng = np.random.default_rng(0)
    labels = rng.normal(size=300).round(decimals).astype(np.float32)
    scores = (labels + rng.normal(size=300)).round(decimals).astype(np.float32)
    ours = score(("pearson", "spearman", "mse"), scores, labels)
    x, y = scores.astype(np.float64), labels.astype(np.float64)
    assert ours["pearson"] == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)
    assert ours["spearman"] == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert ours["mse"] == pytest.approx(np.mean((x - y) ** 2), abs=1e-12)


def test_constant_guesses_have_no_correlation_and_a_matthews_of_zero() -> None:
    labels = np.array([0, 1, 1, 0])
    assert score(("matthews",), _logits(np.zeros(4, dtype=int), 2), labels) == {"matthews": 0.0}
    assert score(("pearson", "spearman"), np.ones(4), labels.astype(np.float32)) == {"pearson": None, "spearman": None}


def test_f1_is_zero_when_wrong_and_null_when_there_is_nothing_to_find() -> None:
    assert score(("f1",), _logits(np.array([0, 0]), 2), np.array([0, 1])) == {"f1": 0.0}
    assert score(("f1",), _logits(np.array([0, 0]), 2), np.array([0, 0])) == {"f1": None}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_predictions_have_no_score(bad: float) -> None:
    logits = _logits(np.array([0, 1]), 2)
    logits[0, 0] = bad
    assert score(("accuracy", "f1"), logits, np.array([0, 1])) == {"accuracy": None, "f1": None}
    assert score(("mse",), np.array([bad, 0.0]), np.array([0.0, 0.0])) == {"mse": None}


def _task(kind: str, classes: int) -> RawTask:
    labels = tuple("abcdef"[:classes]) if kind == "classification" else None
    own = ("accuracy", "f1") if kind == "classification" else ("pearson",)
    return RawTask("t", kind, labels, {}, own)  # type: ignore[arg-type]


def test_the_chosen_metric_comes_first_and_the_tasks_own_stay() -> None:
    task = _task("classification", 2)
    assert choose(task, None) is task
    assert choose(task, "f1").metrics == ("f1", "accuracy")
    assert choose(task, "matthews").metrics == ("matthews", "accuracy", "f1")


@pytest.mark.parametrize(
    ("task", "metric", "end"),
    [
        (
            _task("classification", 2),
            "acuracy",
            r"allowed: accuracy, f1, macro_f1, matthews; did you mean 'accuracy'\?",
        ),
        (_task("classification", 2), "auroc", r"matthews; `loralab evaluate RUN` computes it after training$"),
        (_task("classification", 3), "f1", r"allowed: accuracy, macro_f1, matthews$"),
        (_task("regression", 0), "accuracy", r"allowed: pearson, spearman, mse"),
    ],
)
def test_a_metric_of_the_wrong_kind_is_refused(task: RawTask, metric: str, end: str) -> None:
    with pytest.raises(UserError, match=rf"task\.metric: '{metric}' does not score t .*{end}"):
        choose(task, metric)


def test_every_metric_scores() -> None:
    guesses, labels = _logits(np.array([0, 1, 1]), 2), np.array([0, 1, 0])
    assert all(value is not None for value in score(tuple(METRICS["classification"]), guesses, labels).values())
    assert all(
        v is not None for v in score(tuple(METRICS["regression"]), np.arange(3.0), np.array([0, 2, 1.0])).values()
    )


def test_better_is_higher_but_for_errors_and_null_never_wins() -> None:
    assert better("accuracy", 0.9, 0.8) and not better("accuracy", 0.8, 0.8)
    assert better("mse", 0.1, 0.2) and not better("mse", 0.2, 0.1)
    assert better("f1", 0.0, None) and not better("f1", None, 0.0) and not better("f1", None, None)
