"""Metrics: numpy arrays of predictions and labels -> one number per metric.

Metrics of texts are in text_metrics.py. Here are also the metrics that each task allows, and the comparison of scores.

The definitions are those of the GLUE benchmark (scikit-learn's and scipy's). Only the metrics that need these libraries
import them, since the import takes two seconds.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from loralab.errors import UserError
from loralab.tasks.splits import Kind, Pairs, RawTask, Rows
from loralab.tasks.text_metrics import LOSS_METRICS, TEXT_METRICS, check_installed

__all__ = ["METRICS", "applicable", "better", "choose", "score"]

_Array = npt.NDArray[Any]


def _accuracy(classes: _Array, labels: _Array) -> float:
    return float(np.mean(classes == labels))


def _f1(classes: _Array, labels: _Array) -> float:
    """F1 of class 1, as in GLUE; NaN if the class occurs in neither predictions nor labels."""
    return float(_f1_of(np.array([1]), classes, labels)[0])


def _macro_f1(classes: _Array, labels: _Array) -> float:
    """The mean F1 over the classes that occur in predictions or labels."""
    return float(np.mean(_f1_of(np.union1d(labels, classes), classes, labels)))


def _f1_of(each: _Array, classes: _Array, labels: _Array) -> _Array:
    """2 TP / (2 TP + FP + FN) of each class, bit for bit scikit-learn's, without its import of half a second."""
    there, predicted = labels[:, None] == each, classes[:, None] == each
    with np.errstate(invalid="ignore"):  # 0 / 0
        scores: _Array = 2 * (there & predicted).sum(axis=0) / (there.sum(axis=0) + predicted.sum(axis=0))
    return scores


def _matthews(classes: _Array, labels: _Array) -> float:
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(labels, classes))


def _mse(scores: _Array, labels: _Array) -> float:
    return float(np.mean((scores - labels) ** 2))


def _pearson(scores: _Array, labels: _Array) -> float:
    """Linear correlation, NaN if either side is constant."""
    from scipy.stats import pearsonr

    return _correlation(pearsonr, scores, labels)


def _spearman(scores: _Array, labels: _Array) -> float:
    """Correlation of the ranks, NaN if either side is constant."""
    from scipy.stats import spearmanr

    return _correlation(spearmanr, scores, labels)


def _correlation(of: Callable[[_Array, _Array], Any], scores: _Array, labels: _Array) -> float:
    constant = np.ptp(scores) == 0 or np.ptp(labels) == 0  # scipy warns there
    return float("nan") if constant else float(of(scores, labels).statistic)


METRICS: dict[Kind, Mapping[str, Callable[..., float]]] = {
    "classification": {"accuracy": _accuracy, "f1": _f1, "macro_f1": _macro_f1, "matthews": _matthews},
    "regression": {"pearson": _pearson, "spearman": _spearman, "mse": _mse},
    "generation": {**TEXT_METRICS, **LOSS_METRICS},
}
# What `loralab evaluate` has beside these, by the names that people give it.
_AFTERWARDS = ("auroc", "auc", "roc_auc", "roc-auc", "precision", "recall", "support", "calibration", "ece")
_LOWER = ("mse", "perplexity")  # metrics of which the lower value is the better one
_OF_DATABASES = ("execution_accuracy", "held_out_accuracy")


def score(metrics: tuple[str, ...], predictions: _Array, labels: _Array) -> dict[str, float | None]:
    """Each metric of `predictions`: (n, classes) logits against class ids, or (n,) scores against scores.

    A metric that is undefined (constant scores, a non-finite prediction) is None.
    """
    assert len(predictions) == len(labels) > 0
    kind: Kind = "classification" if predictions.ndim == 2 else "regression"
    if not np.isfinite(predictions).all():
        return dict.fromkeys(metrics)
    guesses = predictions.argmax(axis=1) if kind == "classification" else predictions.astype(np.float64)
    truth = labels if kind == "classification" else labels.astype(np.float64)
    values = {name: METRICS[kind][name](guesses, truth) for name in metrics}
    return {name: value if np.isfinite(value) else None for name, value in values.items()}


def better(metric: str, score: float | None, than: float | None) -> bool:
    """Whether `score` is better than `than` (lower: mse, perplexity); any score is better than an undefined one."""
    if score is None or than is None:
        return score is not None
    return score < than if metric in _LOWER else score > than


def choose(raw: RawTask[Rows], metric: str | None) -> RawTask[Rows]:
    """The task with `metric` as its primary metric, followed by the task's other metrics; None changes nothing.

    Raises UserError if the metric does not score the task, or if a library of one of its metrics is not installed.
    """
    if metric is None:
        check_installed(raw.metrics)
        return raw
    allowed = [name for name in METRICS[raw.kind] if _applies(name, raw)]
    if metric not in allowed:
        near = difflib.get_close_matches(metric, allowed, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        if metric.lower() in _AFTERWARDS:
            hint = "; `loralab evaluate RUN` computes it after training"
        raise UserError(
            f"task.metric: '{metric}' does not score {raw.name} ({raw.kind}); allowed: {', '.join(allowed)}{hint}"
        )
    chosen = (metric, *(name for name in raw.metrics if name != metric))
    check_installed(chosen)
    return replace(raw, metrics=chosen)


def applicable(metrics: Iterable[str], raw: RawTask[Rows]) -> tuple[str, ...]:
    """Those of the metrics that score the task, of which a file may lack the databases."""
    return tuple(name for name in metrics if name in METRICS[raw.kind] and _applies(name, raw))


def _applies(metric: str, raw: RawTask[Rows]) -> bool:
    if metric == "f1":
        return raw.labels is not None and len(raw.labels) == 2
    if metric in _OF_DATABASES:
        return all(isinstance(rows, Pairs) and rows.databases is not None for rows in raw.splits.values())
    return True
