"""The axes of a sweep's figure: which are numeric, their values in order, and the ticks."""

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from loralab import plotting
from loralab.runs.differing import text_of
from loralab.sweeps.ranking import Configuration

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "FEW_TICKS",
    "MOST_TICKS",
    "by_size",
    "far_apart",
    "numbers_on",
    "numeric_axes",
    "set_ticks",
    "text_on",
    "values_on",
]

MOST_TICKS, FEW_TICKS = 7, 5  # labels that a panel of its own, or one of several, has room for
LOG_FROM = 8.0  # the largest value is at least this many times the smallest: a logarithmic axis


def numeric_axes(axes: Sequence[str], configurations: Sequence[Configuration]) -> list[str]:
    """The axes on which every configuration has a number."""
    return [key for key in axes if all(_is_number(each.settings.get(key)) for each in configurations)]


def numbers_on(configurations: Iterable[Configuration], key: str) -> list[float]:
    """The values on a numeric axis, in order."""
    return sorted({float(each.settings[key]) for each in configurations})


def values_on(configurations: Iterable[Configuration], key: str | None) -> list[str]:
    """The values on an axis as text; one empty text without an axis."""
    return sorted({text_on(each, key) for each in configurations}, key=by_size)


def text_on(configuration: Configuration, key: str | None) -> str:
    """The value on an axis; empty where the configuration has none."""
    return "" if key is None or key not in configuration.settings else text_of(configuration.settings[key])


def by_size(text: str) -> tuple[int, float, str]:
    """Numbers by size, before words."""
    try:
        return 0, float(text), text
    except ValueError:
        return 1, 0.0, text


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def far_apart(values: Sequence[float]) -> bool:
    """Whether values in their order take a logarithmic axis."""
    return values[0] > 0 and values[-1] >= LOG_FROM * values[0]


def set_ticks(ax: "Axes", values: Sequence[float], *, most: int) -> None:
    """A tick at each value that was tried, as far as there is room; a logarithmic axis where they are far apart."""
    if logarithmic := far_apart(values):
        ax.set_xscale("log")
    places = [math.log(value) if logarithmic else value for value in values]
    apart, shown = 0.9 * (places[-1] - places[0]) / (most - 1), [0]
    for at in range(1, len(values)):
        if places[at] - places[shown[-1]] >= apart:
            shown.append(at)
    plotting.label_powers(ax.xaxis, [values[at] for at in shown])
