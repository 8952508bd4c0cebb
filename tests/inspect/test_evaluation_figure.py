"""Figures of an evaluation: the matrix has every count, and any name of a class is drawn as it is."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from loralab import plotting
from loralab.inspect.classification import MATRIX, classified
from loralab.inspect.evaluation_figure import drawn_classes, drawn_numbers


def texts(figure: Figure) -> list[str]:
    figure.canvas.draw()
    return [each.get_text() for each in figure.axes[0].texts]


@pytest.mark.parametrize("classes", [2, 17, MATRIX + 5])
def test_the_matrix_has_the_counts_while_they_can_be_read(classes: int) -> None:
    generator = np.random.default_rng(0)
    truth, p = generator.integers(classes, size=200), generator.dirichlet(np.ones(classes), 200)
    names = [f"a $ of {at}\n{'x' * 40}" for at in range(classes)]
    found = classified(names, truth, p)
    with plotting.style():
        figure = drawn_classes("mine", found)
        counts = sorted(str(n) for n in found.confusion[found.confusion > 0])
        assert sorted(texts(figure)) == (counts if classes <= MATRIX else [])
        ticks = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert len(ticks) == classes and ticks[0].startswith("a $ of 0") and max(map(len, ticks)) <= 24


def test_numbers_are_drawn_against_their_labels() -> None:
    truth = np.array([1.0, 2.0, 4.0])
    with plotting.style():
        figure = drawn_numbers("mine", truth, truth + 1)
        figure.canvas.draw()
    line, points = figure.axes[0].lines
    assert np.array(points.get_xydata()).tolist() == [[1, 2], [2, 3], [4, 5]]
    assert np.array(line.get_xydata()).tolist() == [[1, 1], [5, 5]]
