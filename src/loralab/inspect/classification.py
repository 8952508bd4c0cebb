"""How good a classifier is: each class's precision, recall, F1 and AUROC, the confusion matrix, and calibration.

scikit-learn's definitions. What does not exist, such as the recall of a class without a row, is None.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loralab import tasks
from loralab.text import align, figure, finite

__all__ = ["BINS", "MATRIX", "Bin", "ClassScores", "Classified", "classified", "lines", "losses"]

BINS = 15  # equal parts of [0, 1], as in Guo et al. 2017, "On Calibration of Modern Neural Networks"
MATRIX = 20  # classes: with more, the matrix is wider than a terminal, and its largest entries are listed alone
_CONFUSIONS = 10

Array = NDArray[Any]


@dataclass(frozen=True)
class ClassScores:
    """One class against all others; support: its rows; predicted: how many rows were taken for it."""

    name: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int
    predicted: int
    auroc: float | None


@dataclass(frozen=True)
class Bin:
    """The rows whose prediction has a probability in (low, high]: their mean probability, and the share right."""

    low: float
    high: float
    rows: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, eq=False)
class Classified:
    """confusion[t, p]: rows of class t that were taken for p. interval: of the accuracy, 95%, Wilson's.

    scores: accuracy, macro_f1, matthews, auroc (binary: of the positive class, labels[1]; else the mean over the
    classes), loss (nats), brier. majority: the accuracy of the most frequent class for every row. ece: expected
    calibration error, the mean over rows of their bin's |accuracy - confidence|.
    """

    labels: tuple[str, ...]
    rows: int
    scores: dict[str, float | None]
    interval: tuple[float, float]
    majority: float
    classes: list[ClassScores]
    confusion: Array
    bins: list[Bin]
    ece: float

    @property
    def positive(self) -> str | None:
        """The class that f1, precision, recall and AUROC of a binary task are of; None for more classes."""
        return self.labels[1] if len(self.labels) == 2 else None


def classified(labels: Sequence[str], truth: Array, p: Array) -> Classified:
    """Measures of the probabilities p (n, classes) of rows with class ids `truth` (n,)."""
    from scipy.stats import binomtest
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support, roc_auc_score

    ids = np.arange(len(labels))
    guesses = p.argmax(axis=1)
    support, predicted = (np.bincount(values, minlength=len(labels)) for values in (truth, guesses))
    precision, recall, f1, _ = precision_recall_fscore_support(truth, guesses, labels=ids, zero_division=np.nan)
    areas = [
        float(roc_auc_score(truth == at, p[:, at])) if 0 < support[at] < len(truth) else float("nan") for at in ids
    ]
    classes = [
        ClassScores(name, finite(precision[at]), finite(recall[at]), finite(f1[at]), int(support[at]),
                    int(predicted[at]), finite(areas[at]))
        for at, name in enumerate(labels)
    ]  # fmt: skip
    right = int((guesses == truth).sum())
    spread = binomtest(right, len(truth)).proportion_ci(0.95, "wilson")
    there = [area for area in areas if np.isfinite(area)]
    area = areas[1] if len(labels) == 2 else float(np.mean(there)) if there else float("nan")
    one_hot = truth[:, None] == ids
    bins = _bins(p.max(axis=1), guesses == truth)
    return Classified(
        labels=tuple(labels),
        rows=len(truth),
        scores={
            **tasks.score(("accuracy", "macro_f1", "matthews"), p, truth),
            "auroc": finite(area),
            "loss": finite(float(losses(truth, p).mean())),
            "brier": float(((p - one_hot) ** 2).sum(axis=1).mean()),
        },
        interval=(float(spread.low), float(spread.high)),
        majority=float(support.max() / len(truth)),
        classes=classes,
        confusion=confusion_matrix(truth, guesses, labels=ids),
        bins=bins,
        ece=sum(each.rows * abs(each.accuracy - each.confidence) for each in bins) / len(truth),
    )


def losses(truth: Array, p: Array) -> Array:
    """-log p of each row's class, (n,)."""
    with np.errstate(divide="ignore"):
        found: Array = -np.log(p[np.arange(len(truth)), truth])
    return found


def _bins(confidence: Array, right: Array) -> list[Bin]:
    """The bins that have rows."""
    at = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    found = []
    for each in range(BINS):
        inside = at == each
        if inside.any():
            means = float(confidence[inside].mean()), float(right[inside].mean())
            found.append(Bin(each / BINS, (each + 1) / BINS, int(inside.sum()), *means))
    return found


def lines(found: Classified) -> list[str]:
    """The report for a terminal."""
    low, high = found.interval
    accuracy = f"accuracy {figure(found.scores['accuracy'])} [{low:.4f}, {high:.4f}]"
    said = [
        f"{accuracy} (95%, Wilson); the most frequent class for every row: {found.majority:.4f}",
        "  ".join(f"{name} {figure(value)}" for name, value in found.scores.items() if name != "accuracy"),
    ]
    if found.positive is not None:
        said.append(f"positive class: {found.positive} (f1, precision, recall and auroc are its)")
    header = ("class", "precision", "recall", "f1", "auroc", "rows", "predicted")
    table = [
        (each.name, *map(figure, (each.precision, each.recall, each.f1, each.auroc)), f"{each.support:,}",
         f"{each.predicted:,}")
        for each in found.classes
    ]  # fmt: skip
    note = [] if found.positive is not None else ["auroc: each class against all others; above, their mean"]
    return [*said, "", *align([header, *table]), *note, "", *_confusions(found), "", *_reliability(found)]


def _confusions(found: Classified) -> list[str]:
    """The matrix, or its largest entries off the diagonal."""
    if len(found.labels) <= MATRIX:
        header = ("", *map(str, range(len(found.labels))))
        rows = [(f"{at} {name}", *map(str, found.confusion[at])) for at, name in enumerate(found.labels)]
        return ["confusion matrix: a row is a true class, a column a predicted one", *align([header, *rows])]
    off = found.confusion - np.diag(np.diag(found.confusion))
    order = np.argsort(-off, axis=None, kind="stable")[:_CONFUSIONS]
    pairs = [np.unravel_index(at, off.shape) for at in order]
    most = [(found.labels[t], found.labels[p], str(off[t, p])) for t, p in pairs if off[t, p]]
    return align([("most frequent confusions: the true class", "predicted", "rows"), *most], text=2)


def _reliability(found: Classified) -> list[str]:
    rows = [
        (f"{each.low:.2f} to {each.high:.2f}", f"{each.rows:,}", f"{each.confidence:.4f}", f"{each.accuracy:.4f}")
        for each in found.bins
    ]
    return [
        f"calibration: ECE {found.ece:.4f} ({BINS} bins of the probability of the prediction)",
        *align([("probability", "rows", "mean", "share right"), *rows]),
    ]
