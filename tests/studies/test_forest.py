"""A forest: a mark and a bar for each setting and arm, the pooled row last, and bands where they were asked for."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from loralab import plotting
from loralab.studies.forest import forest
from loralab.studies.pooled import Pooled
from loralab.studies.stats import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAN = math.nan


def about(at: float) -> Interval:
    return Interval(at, at - 0.01, at + 0.02, 5, 0.1)


def pooled(effect: float, **settings: float) -> Pooled:
    return Pooled(about(effect), about(effect), 0.0, {(name, "A"): about(at) for name, at in settings.items()})


@pytest.fixture
def ax() -> Iterator["Axes"]:
    from matplotlib import pyplot

    with plotting.style():
        figure, axes = pyplot.subplots()
        yield axes
        pyplot.close(figure)


def test_each_mark_is_a_gain_and_each_bar_its_interval(ax: "Axes") -> None:
    forest(ax, {"λ = 4": pooled(0.01, trec=0.0, sql=0.02), "λ = 16": pooled(0.03, trec=0.03)}, unit=0.01)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["TREC, A", "SQL, A", "all, pooled"]
    drawn: Any = [np.asarray(line.get_xdata(), dtype=float) for line in ax.lines[2:]]
    bars, marks = drawn[::2], np.concatenate(drawn[1::2])
    np.testing.assert_allclose(marks, [0, 2, 1, 3, 3])
    np.testing.assert_allclose(bars, [[at - 1, at + 2] for at in marks])
    rows = [round(float(np.ravel(line.get_ydata())[0])) for line in ax.lines[3::2]]
    assert rows == [0, 1, 2, 0, 2]


def test_arms_do_not_cover_each_other(ax: "Axes") -> None:
    forest(ax, {f"λ = {ratio}": pooled(0.0, trec=0.0) for ratio in (2, 4, 8)})
    heights = [float(np.ravel(line.get_ydata())[0]) for line in ax.lines[3::2]]
    assert len({round(height, 3) for height in heights}) == 6


def test_bands_are_in_the_unit_of_the_axis(ax: "Axes") -> None:
    forest(ax, {"λ = 4": pooled(0.0, trec=0.0)}, unit=0.01, margin=0.005, claimed=(0.01, 0.02))
    bands: Any = ax.patches
    ends: Any = [[band.get_x(), band.get_x() + band.get_width()] for band in bands]
    np.testing.assert_allclose(ends, [[1, 2], [-0.5, 0.5]])


def test_a_gain_without_an_interval_is_a_mark_without_a_bar(ax: "Axes") -> None:
    unknown = Interval(0.01, NAN, NAN, 1, NAN)
    forest(ax, {"λ = 4": Pooled(unknown, unknown, 0.0, {("trec", "A"): unknown})})
    bars: Any = ax.lines[2::2]
    assert all(np.isnan(np.asarray(bar.get_xdata(), dtype=float)).all() for bar in bars)
