"""What a task is scored by: numpy arrays of predictions and labels in, one number a metric out.

Definitions are the GLUE benchmark's, which are scikit-learn's and scipy's; those libraries are the tests' oracles and
are not imported here, since importing them costs every run seconds.
"""

import difflib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from loralab.errors import UserError
from loralab.tasks.raw import Kind, RawTask

__all__ = ["METRICS", "better", "choose", "score"]

_Array = npt.NDArray[Any]


def _accuracy(classes: _Array, labels: _Array) -> float:
    return float(np.mean(classes == labels))


def _f1(classes: _Array, labels: _Array, of: int = 1) -> float:
    """2 TP / (2 TP + FP + FN) of one class, NaN where it is neither predicted nor there; GLUE's is class 1's."""
    hits, total = np.sum((classes == of) & (labels == of)), np.sum(classes == of) + np.sum(labels == of)
    return float(2 * hits / total) if total else float("nan")


def _macro_f1(classes: _Array, labels: _Array) -> float:
    """The mean F1 of the classes that are predicted or there."""
    return float(np.mean([_f1(classes, labels, int(c)) for c in np.union1d(classes, labels)]))


def _matthews(classes: _Array, labels: _Array) -> float:
    """The multiclass R_K of Gorodkin (2004); 0, as scikit-learn and GLUE have it, where either side is constant."""
    names = np.union1d(classes, labels)
    predicted, true = classes[:, None] == names, labels[:, None] == names
    covariance = [np.sum(np.mean(a & b, axis=0) - a.mean(axis=0) * b.mean(axis=0)) for a, b in (
        (predicted, true), (predicted, predicted), (true, true))]  # fmt: skip
    denominator = np.sqrt(covariance[1] * covariance[2])
    return float(covariance[0] / denominator) if denominator > 0 else 0.0


def _mse(scores: _Array, labels: _Array) -> float:
    return float(np.mean((scores - labels) ** 2))


def _pearson(scores: _Array, labels: _Array) -> float:
    """Linear correlation, NaN where either side is constant."""
    if np.ptp(scores) == 0 or np.ptp(labels) == 0:
        return float("nan")
    x, y = scores - scores.mean(), labels - labels.mean()
    return float(np.clip(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)), -1, 1))


def _spearman(scores: _Array, labels: _Array) -> float:
    """Pearson's correlation of the ranks, ties at their mean rank."""
    return _pearson(_ranks(scores), _ranks(labels))


def _ranks(values: _Array) -> _Array:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


METRICS: dict[Kind, dict[str, Callable[[_Array, _Array], float]]] = {
    "classification": {"accuracy": _accuracy, "f1": _f1, "macro_f1": _macro_f1, "matthews": _matthews},
    "regression": {"pearson": _pearson, "spearman": _spearman, "mse": _mse},
}


def score(metrics: tuple[str, ...], predictions: _Array, labels: _Array) -> dict[str, float | None]:
    """Each metric of `predictions`: (n, classes) logits against class ids, or (n,) scores against scores.

    A metric that is undefined, for constant scores or a non-finite prediction, is None.
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
    """Whether a score beats another (lower is better for mse alone); an undefined one is beaten by any other."""
    if score is None or than is None:
        return score is not None
    return score < than if metric == "mse" else score > than


def choose(raw: RawTask, metric: str | None) -> RawTask:
    """The task with `metric` as its primary one, the task's own kept after it; None changes nothing."""
    if metric is None:
        return raw
    allowed = [name for name in METRICS[raw.kind] if name != "f1" or (raw.labels is not None and len(raw.labels) == 2)]
    if metric not in allowed:
        near = difflib.get_close_matches(metric, allowed, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise UserError(
            f"task.metric: '{metric}' does not score {raw.name} ({raw.kind}); allowed: {', '.join(allowed)}{hint}"
        )
    return replace(raw, metrics=(metric, *(name for name in raw.metrics if name != metric)))
