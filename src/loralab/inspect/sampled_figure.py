"""The figure of a sweep whose values were sampled, as Optuna samples them: no two configurations share a value.

A panel for each axis, with a dot for each configuration and a ring around the best.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from loralab import plotting
from loralab.inspect.sweep_axes import FEW_TICKS, far_apart, numeric_axes, set_ticks, text_on, values_on
from loralab.sweeps.ranking import Configuration, Ranking

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["are_sampled", "slices"]

SHARE, LEAST = 0.8, 5  # so many of at least so many configurations have a value of their own


def are_sampled(axes: Sequence[str], configurations: Sequence[Configuration]) -> bool:
    """Whether most configurations have a value of their own on a numeric axis, beside another axis that varies."""
    values = {key: {text_on(each, key) for each in configurations} for key in axes}
    own = [key for key in numeric_axes(axes, configurations) if len(values[key]) >= SHARE * len(configurations)]
    return len(axes) > 1 and len(configurations) >= LEAST and bool(own)


def slices(rankings: Sequence[Ranking], axes: Sequence[str]) -> "Figure":
    """A row of panels for each task, a panel for each axis: the mean of each configuration over its value there."""
    import matplotlib.pyplot as plt

    across = len(axes)
    size = (max(plotting.SINGLE, 2.0 * across + 0.8), 2.0 * len(rankings) + 0.6)
    figure, grid = plt.subplots(len(rankings), across, figsize=size, squeeze=False, sharey="row")
    for row, ranking in zip(grid, rankings, strict=True):
        sound = [each for each in ranking.configurations if math.isfinite(each.mean)]
        for ax, key in zip(row, axes, strict=True):
            known = [each for each in sound if key in each.settings]
            words = [] if numeric_axes([key], known) else values_on(known, key)
            places = [float(words.index(text_on(e, key)) if words else e.settings[key]) for e in known]
            ax.plot(places, [each.mean for each in known], "o", color=plotting.COLOURS[0], markersize=4, alpha=0.7)
            if known and known[0] is ranking.best:
                ax.plot(places[0], known[0].mean, "o", markersize=9, mfc="none", mec=plotting.COLOURS[1], mew=1.8)
            if words:
                ax.set_xticks(range(len(words)), words)
                ax.set_xlim(-0.5, len(words) - 0.5)
            elif 0 < len(set(places)) <= FEW_TICKS:
                set_ticks(ax, sorted(set(places)), most=FEW_TICKS)
            elif places and far_apart(sorted(places)):
                ax.set_xscale("log")
            ax.set(title=ranking.task or "", xlabel=key)
        row[0].set_ylabel(ranking.metric)
    return figure
