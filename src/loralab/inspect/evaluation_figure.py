"""Figures of an evaluation: a classifier's confusion matrix and reliability diagram; numbers against the labels."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from loralab import plotting
from loralab.inspect.classification import MATRIX, Classified
from loralab.text import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["drawn_classes", "drawn_numbers"]

CELL = 0.3  # inches a class: a count of three digits at 8 pt
LONGEST = 24  # characters of a class's name


def drawn_classes(title: str, found: Classified) -> "Figure":
    """The matrix as shares of each true class with counts in it, beside accuracy against confidence."""
    from matplotlib import pyplot

    count = len(found.labels)
    side = min(max(CELL * count, 1.8), 9.0)
    figure, (matrix, reliability) = pyplot.subplots(
        1, 2, figsize=(side + 4.6, max(side + 1.4, 2.8)), width_ratios=(side + 1.4, 2.6)
    )
    _matrix(matrix, found)
    _reliability(reliability, found)
    plotting.heading(
        figure,
        f"{title}. Left: numbers are rows, colours shares of the true class. Right: a point is a bin of "
        f"predictions, its area their number; on the line, probabilities are right (ECE {found.ece:.3f}).",
    )
    return figure


def _matrix(axes: "Axes", found: Classified) -> None:
    from matplotlib.patches import Rectangle

    shares = found.confusion / np.maximum(found.confusion.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for at in range(len(found.labels)):
        axes.add_patch(Rectangle((at - 0.5, at - 0.5), 1, 1, fill=False, ec="0.6", lw=0.6))
    names = [shown(name, longest=LONGEST) for name in found.labels]
    if len(names) <= MATRIX:
        for t, p in np.argwhere(found.confusion):
            colour = "white" if shares[t, p] > 0.5 else "black"
            axes.text(p, t, str(found.confusion[t, p]), ha="center", va="center", color=colour)
    size = None if len(names) <= MATRIX else 8 * MATRIX / len(names)
    plain: dict[str, Any] = {"fontsize": size, "parse_math": False}  # a name may have a dollar sign
    axes.set_xticks(range(len(names)), names, rotation=90 if len(names) > 3 else 0, **plain)
    axes.set_yticks(range(len(names)), names, **plain)
    axes.set(xlabel="predicted class", ylabel="true class")


def _reliability(axes: "Axes", found: Classified) -> None:
    axes.plot([0, 1], [0, 1], color="0.6", lw=0.8)
    x, y = [each.confidence for each in found.bins], [each.accuracy for each in found.bins]
    axes.plot(x, y, color=plotting.COLOURS[0], lw=0.8)
    axes.scatter(x, y, [10 + 90 * each.rows / found.rows for each in found.bins], color=plotting.COLOURS[0])
    axes.set(xlim=(0, 1.03), ylim=(0, 1.03), xlabel="probability of the prediction", ylabel="share right")
    axes.set_box_aspect(1)


def drawn_numbers(title: str, truth: NDArray[Any], guesses: NDArray[Any]) -> "Figure":
    """Predicted against true numbers, and the errors' histogram."""
    from matplotlib import pyplot

    figure, (scatter, errors) = pyplot.subplots(1, 2, figsize=(plotting.DOUBLE, 2.9))
    ends = [min(truth.min(), guesses.min()), max(truth.max(), guesses.max())]
    scatter.plot(ends, ends, color="0.6", lw=0.8)
    scatter.plot(truth, guesses, ".", color=plotting.COLOURS[0], alpha=0.5)
    scatter.set(xlabel="label", ylabel="prediction")
    errors.hist(guesses - truth, bins=40, color=plotting.COLOURS[0])
    errors.set(xlabel="prediction - label", ylabel="rows")
    plotting.heading(figure, f"{title}. A point is a row; on the line, the prediction is right.")
    return figure
