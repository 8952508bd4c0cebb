"""Marks show what they are intervals of: no bar without an interval, rows from the top, the pooled mark in black."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from matplotlib.colors import to_hex

from loralab import plotting
from loralab.studies import intervals
from loralab.studies.intervals import POOLED
from loralab.studies.stats import Interval, mean_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GAIN = Interval(0.01, 0.002, 0.018, 5, 0.02)
UNBOUNDED = Interval(0.03, -np.inf, np.inf, 5, 0.5)


@pytest.fixture
def ax() -> "Iterator[Axes]":
    with plotting.style():
        figure, ax = pyplot.subplots()
        yield ax
        pyplot.close(figure)


def bars(container: Any) -> list[list[float]]:
    """The ends of an errorbar's bars, as (x, y) of the first and of the last."""
    return [segment.ravel().tolist() for segment in container[2][0].get_segments()]


def test_a_dot_has_its_own_interval_as_its_bar_in_the_unit_of_the_axis(ax: "Axes") -> None:
    intervals.dots(ax, [3], [GAIN], "black", scale=100)
    intervals.dots(ax, [3], [GAIN], "black", scale=100, across=True)
    upright, across = ax.containers
    assert bars(upright) == [pytest.approx([3, 0.2, 3, 1.8])] and bars(across) == [pytest.approx([0.2, 3, 1.8, 3])]


@pytest.mark.parametrize("unknown", [UNBOUNDED, Interval(0.03, np.nan, np.nan, 1, np.nan)])
def test_an_interval_that_is_not_identified_is_a_dot_without_a_bar(unknown: Interval, ax: "Axes") -> None:
    intervals.dots(ax, [0, 1], [unknown, GAIN], "black")
    first, second = bars(ax.containers[0])
    assert first == pytest.approx([0, 0.03, 0, 0.03]) and second == pytest.approx([1, 0.002, 1, 0.018])


def test_a_forests_rows_go_down_and_its_pooled_marks_are_black_below_the_settings(ax: "Axes") -> None:
    intervals.forest(ax, ["λ = 4", "λ = 16"], {"TREC": [GAIN, GAIN], POOLED: [GAIN, GAIN]})
    top, bottom = ax.get_ylim()[::-1]
    assert top < 0 < 1 < bottom and [label.get_text() for label in ax.get_yticklabels()] == ["λ = 4", "λ = 16"]
    setting, pooled = (container[0] for container in ax.containers)
    assert (setting.get_ydata() < pooled.get_ydata()).all() and np.round(pooled.get_ydata()).tolist() == [0, 1]
    assert to_hex(pooled.get_color()) == "#000000" != to_hex(setting.get_color())


def test_a_forest_shows_the_margin_and_what_a_paper_claims(ax: "Axes") -> None:
    intervals.forest(ax, ["λ = 4"], {"": [GAIN]}, scale=100, margin=0.005, claimed=("1 to 2 points", 0.01, 0.02))
    spans = {patch.get_label(): patch.get_extents() for patch in ax.patches}
    width = {name: ax.transData.inverted().transform(box)[:, 0] for name, box in spans.items()}
    assert width["counts as none: up to 0.5"].tolist() == pytest.approx([-0.5, 0.5])
    assert width["1 to 2 points"].tolist() == pytest.approx([1, 2])


def test_a_claim_of_one_number_is_a_line(ax: "Axes") -> None:
    intervals.forest(ax, ["λ = 4"], {"": [GAIN]}, null=1, claimed=("twice as fast", 2, 2))
    lines = {line.get_label(): line.get_xdata() for line in ax.lines}
    assert list(lines["twice as fast"]) == [2, 2] and [1, 1] in [list(each) for each in lines.values()]


def test_a_band_is_the_interval_of_the_mean_over_the_seeds(ax: "Axes") -> None:
    values = pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 5.0]}, index=[0, 10])
    intervals.band(ax, values, "black", "λ = 1")
    (line,), (area,) = ax.lines, ax.collections
    assert line.get_ydata().tolist() == [2, 3.5] and line.get_xdata().tolist() == [0, 10]  # type: ignore[union-attr]
    found, corners = mean_interval([1.0, 3.0]), area.get_paths()[0].vertices
    at_0 = np.asarray(corners)[np.asarray(corners)[:, 0] == 0, 1]
    assert min(at_0) == pytest.approx(found.low) and max(at_0) == pytest.approx(found.high)
