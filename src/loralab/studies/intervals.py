"""Estimates and their intervals as marks: dots, a forest of differences, and curves with a band over the seeds.

A bar is the interval of what its dot shows: a mean has its own interval, and a difference is drawn as a difference.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from loralab import plotting
from loralab.studies.stats import Interval, mean_interval

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["LINES", "PAPER", "POOLED", "band", "dots", "forest"]

PAPER = plotting.COLOURS[1]  # what a paper says
LINES = ("#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#7a5195", "#8c6d31")  # apart from PAPER and from black, `POOLED`
POOLED = "pooled"
SPREAD, APART = 0.8, 0.22  # of a row's height: all its marks, and the most between two


def dots(
    ax: "Axes",
    places: ArrayLike,
    found: Sequence[Interval],
    colour: str,
    label: str | None = None,
    *,
    mark: str = "o",
    join: str = "",
    scale: float = 1.0,
    across: bool = False,
) -> None:
    """Dots with their intervals as bars, at these x (`across`: y); an interval that is not identified has no bar.

    join: the style of a line through the dots. scale: of the values, as 100 for points of accuracy.
    """
    ends = ("estimate", "low", "high")
    middle, low, high = (scale * np.array([getattr(each, end) for each in found], dtype=float) for end in ends)
    bars = np.array([middle - low, high - middle])
    bars = np.where(np.isfinite(bars).all(axis=0), np.clip(bars, 0, None), 0.0)  # rounding may give -1e-17
    where: dict[str, Any] = {"x": places, "y": middle, "yerr": bars}
    if across:
        where = {"x": middle, "y": places, "xerr": bars}
    ax.errorbar(**where, fmt=f"{mark}{join}", color=colour, lw=1.0, elinewidth=1.1, label=label)


def forest(
    ax: "Axes",
    rows: Sequence[str],
    lines: Mapping[str, Sequence[Interval]],
    *,
    scale: float = 1.0,
    null: float = 0.0,
    margin: float = 0.0,
    claimed: tuple[str, float, float] | None = None,
) -> None:
    """Differences with their intervals, the first row on top; in a row, a mark of each line, `POOLED` in black.

    null: no difference, and up to `margin` from it counts as none (grey). claimed: a paper's words and range (orange).
    """
    for place in range(0, len(rows), 2):
        ax.axhspan(place - 0.5, place + 0.5, color="0.96", lw=0, zorder=-3)
    if margin:
        ends, none = (scale * (null - margin), scale * (null + margin)), f"counts as none: up to {scale * margin:g}"
        ax.axvspan(*ends, color="0.87", lw=0, zorder=-2, label=none)
    if claimed is not None:
        words, first, last = claimed
        style: dict[str, Any] = {"color": PAPER, "alpha": 0.35, "zorder": -2, "label": words}
        if first == last:
            ax.axvline(scale * first, lw=2, **style)
        else:
            ax.axvspan(scale * first, scale * last, lw=0, **style)
    ax.axvline(scale * null, color="0.4", lw=0.8, zorder=-1)
    offsets = (np.arange(len(lines)) - (len(lines) - 1) / 2) * min(APART, SPREAD / len(lines))
    for (name, found), offset, colour in zip(lines.items(), offsets, LINES if len(lines) > 1 else "k", strict=False):
        pooled = name == POOLED
        places = np.arange(len(rows)) + offset
        dots(
            ax,
            places,
            found,
            "black" if pooled else colour,
            name,
            mark="D" if pooled else "o",
            scale=scale,
            across=True,
        )
    ax.set_yticks(range(len(rows)), rows)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)


def note_outside(ax: "Axes", y: float, text: str, colour: str) -> None:
    """A text at the right of the panel, at this y: the name of a line that ends there."""
    ax.annotate(
        text,
        (1, y),
        xycoords=("axes fraction", "data"),
        xytext=(4, 0),
        textcoords="offset points",
        color=colour,
        va="center",
        annotation_clip=False,
    )


def band(ax: "Axes", values: "pd.DataFrame", colour: str, label: str | None = None) -> None:
    """The mean over the columns (seeds) against the index, with its interval as a band (Student t)."""
    found = [mean_interval(row) for row in values.to_numpy(dtype=float)]
    places = values.index.to_numpy(dtype=float)
    low, high = ([getattr(each, end) for each in found] for end in ("low", "high"))
    ax.fill_between(places, low, high, color=colour, alpha=0.2, lw=0)
    ax.plot(places, [each.estimate for each in found], color=colour, label=label)
