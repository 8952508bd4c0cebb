"""The figure of a sweep: a line over one numeric axis, a heatmap over two, small multiples over more.

Where the values were sampled, as by Optuna: sampled_figure.py.

One numeric axis: a dot for each run, and a line through the means over the seeds; one colour for each value of another
axis. Two: the mean of each configuration. None: a row for each configuration.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from loralab import plotting
from loralab.errors import UserError
from loralab.inspect.sampled_figure import are_sampled, slices
from loralab.inspect.sweep_axes import (
    FEW_TICKS,
    MOST_TICKS,
    by_size,
    numbers_on,
    numeric_axes,
    set_ticks,
    text_on,
    values_on,
)
from loralab.runs.differing import LEADING, SEEDS, differing, short_names, text_of
from loralab.runs.rows import lower_is_better
from loralab.sweeps.ranking import Configuration, Ranking
from loralab.text import count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["drawn"]

MOST_PANELS = 12  # those with the best configurations
MOST_ROWS = 24  # of a figure without a numeric axis
WORST = 3.0  # means further from the best than this many times the middle one are beyond the scale
ACROSS = 3  # panels beside one another
WIDEST = 2 * plotting.DOUBLE
BOX: dict[str, Any] = {"facecolor": "none", "edgecolor": plotting.COLOURS[1], "lw": 1.8, "zorder": 3}

Cells = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Roles:
    """Which axis is where in the figure; numeric ones are x and y."""

    x: str | None
    y: str | None
    colour: str | None
    panels: tuple[str, ...]


@dataclass(frozen=True)
class _Panel:
    """title: its settings; best, worst: the ends of the scale of means; low, high: with the runs of those means."""

    title: str
    metric: str
    configurations: list[Configuration]
    best: float
    worst: float
    low: float
    high: float

    @property
    def sound(self) -> list[Configuration]:
        return [each for each in self.configurations if math.isfinite(each.mean)]


def drawn(rankings: Sequence[Ranking]) -> "Figure":
    """The figure of every configuration that has a mean; UserError where the configurations differ in nothing."""
    axes = list(dict.fromkeys(key for ranking in rankings for key in ranking.axes))
    if not axes:
        raise UserError("sweep: the runs differ in their seeds alone, so there is nothing to draw")
    if all(ranking.best is None for ranking in rankings):
        raise UserError("sweep: no configuration has a score yet, so there is nothing to draw")
    every = [each for ranking in rankings for each in ranking.configurations]
    if are_sampled(axes, every):
        figure = slices(rankings, axes)
        plotting.heading(figure, _heading(rankings, "dots: configurations; ring: the best"))
        return figure
    roles = _roles(axes, every)
    found = [panel for ranking in rankings for panel in _panels(ranking, roles)]
    panels = _chosen(found)
    draw = _listed if roles.x is None else _lines if roles.y is None else _heatmaps
    figure = draw(panels, roles)
    left_out = f"; {count(len(found) - len(panels), 'panel')} left out" if len(found) > len(panels) else ""
    marks = "box: the best" if roles.y is not None else "dots: runs; lines: means"
    plotting.heading(figure, f"{_heading(rankings, marks)}{left_out}")
    return figure


def _roles(axes: Sequence[str], configurations: Sequence[Configuration]) -> _Roles:
    """The rate is x, else the numeric axis with the most values; the next one is y."""
    values = {key: {text_on(each, key) for each in configurations} for key in axes}
    numeric = numeric_axes(axes, configurations)
    numeric.sort(key=lambda key: (key != "optim.lr", -len(values[key]), key != "lora.ratio"))
    x, y = [*numeric[:2], None, None][:2]
    left = [key for key in axes if key not in (x, y)]
    colours = [key for key in left if len(values[key]) <= len(plotting.COLOURS)]
    colour = max(colours, key=lambda key: len(values[key])) if colours and y is None and x is not None else None
    return _Roles(x, y, colour, () if x is None else tuple(key for key in left if key != colour))


def _panels(ranking: Ranking, roles: _Roles) -> list[_Panel]:
    """One for each combination of the panels' axes, in the order of their values."""
    groups: dict[tuple[str, ...], list[Configuration]] = {}
    for each in ranking.configurations:
        groups.setdefault(tuple(text_on(each, key) for key in roles.panels), []).append(each)
    names = short_names(roles.panels)
    best, worst = _scale([each.mean for each in ranking.configurations], ranking.metric)
    shown = [each for each in ranking.configurations if min(best, worst) <= each.mean <= max(best, worst)]
    runs = [best, worst, *(value for each in shown for value in each.values)]
    found = []
    for texts in sorted(groups, key=lambda texts: [by_size(text) for text in texts]):
        settings = [f"{names[key]} {text}" for key, text in zip(roles.panels, texts, strict=True) if text]
        title = ", ".join([*([ranking.task] if ranking.task else []), *settings])
        found.append(_Panel(title, ranking.metric, groups[texts], best, worst, min(runs), max(runs)))
    return found


def _chosen(panels: Sequence[_Panel]) -> Sequence[_Panel]:
    """Where there are too many, those with the best means, which the first configurations of a panel have."""

    def distance(panel: _Panel) -> float:
        return abs(panel.sound[0].mean - panel.best) if panel.sound else math.inf

    kept = sorted(range(len(panels)), key=lambda at: distance(panels[at]))[:MOST_PANELS]
    return [panels[at] for at in sorted(kept)]


def _scale(means: Sequence[float], metric: str) -> tuple[float, float]:
    """The best mean, and the worst that is not beyond the scale."""
    sound = [mean for mean in means if math.isfinite(mean)]
    if not sound:
        return 0.0, 1.0
    sign = 1 if lower_is_better(metric) else -1
    ordered = sorted(sign * mean for mean in sound)
    end = min(ordered[-1], ordered[0] + WORST * max(median(ordered) - ordered[0], 1e-3))
    return sign * ordered[0], sign * end


def _heading(rankings: Sequence[Ranking], marks: str) -> str:
    """What all runs share, and what the marks mean."""
    rows = [row for ranking in rankings for row in ranking.rows]
    differ = differing(rows)
    same = [
        f"{key.rpartition('.')[2]} {text_of(rows[0].settings[key])}"
        for key in LEADING
        if key not in (*differ, *SEEDS) and all(key in row.settings for row in rows)
    ]
    seeds = {len(each.values) for ranking in rankings for each in ranking.configurations if each.values}
    of = count(max(seeds), "seed") if len(seeds) == 1 else f"{min(seeds)} to {max(seeds)} seeds"
    return f"{', '.join(same)}; {of}; {marks}" if same else f"{of}; {marks}"


def _lines(panels: Sequence[_Panel], roles: _Roles) -> "Figure":
    """A panel for each; a dot for each run, a line through the means, a cross at the edge for a diverged one."""
    x = roles.x
    assert x is not None
    figure, grid = _grid(panels, (2.6, 2.0), sharex=True)
    every = [each for panel in panels for each in panel.configurations]
    for ax, panel in zip(grid, panels, strict=True):
        for colour, line in zip(plotting.COLOURS, values_on(every, roles.colour), strict=False):
            own = sorted(
                (each for each in panel.configurations if text_on(each, roles.colour) == line),
                key=lambda each: float(each.settings[x]),
            )
            sound = [each for each in own if math.isfinite(each.mean)]
            ax.plot([e.settings[x] for e in sound], [e.mean for e in sound], color=colour, label=line or "none")
            dots = [(each.settings[x], value) for each in sound for value in each.values]
            ax.plot(*zip(*dots, strict=True) if dots else ([], []), "o", color=colour, markersize=3, alpha=0.7)
            edge = 0.98 if panel.worst > panel.best else 0.02
            for each in filter(_diverged, own):
                ax.plot(each.settings[x], edge, "x", color=colour, transform=ax.get_xaxis_transform(), clip_on=False)
        ax.set(title=panel.title, xlabel=x, ylabel=panel.metric)
        margin = 0.05 * (panel.high - panel.low) + 1e-4
        ax.set_ylim(panel.low - margin, panel.high + margin)  # lines to those beyond leave the panel
    set_ticks(
        grid[0], numbers_on(every, x), most=MOST_TICKS if len(panels) == 1 and roles.colour is None else FEW_TICKS
    )
    for ax in grid[: -(len(grid) % ACROSS or ACROSS)] if len(grid) > ACROSS else []:
        ax.set_xlabel("")
    if roles.colour:
        handles, labels = grid[0].get_legend_handles_labels()
        figure.legend(handles, labels, title=roles.colour.rpartition(".")[2], loc="outside right center")
    return figure


def _heatmaps(panels: Sequence[_Panel], roles: _Roles) -> "Figure":
    """A panel for each; the mean in each cell, a box around the best; blank where nothing was tried."""
    x, y = roles.x, roles.y
    assert x is not None and y is not None
    across, up = (max(len(numbers_on(panel.configurations, key)) for panel in panels) for key in (x, y))
    figure, grid = _grid(panels, (0.42 * across + 0.9, 0.2 * up + 0.9))
    for ax, panel in zip(grid, panels, strict=True):
        columns, rows = numbers_on(panel.configurations, x), numbers_on(panel.configurations, y)
        cells = np.full((len(rows), len(columns)), np.nan)
        for each in panel.configurations:
            place = rows.index(float(each.settings[y])), columns.index(float(each.settings[x]))
            cells[place] = each.mean
            if _diverged(each):
                ax.text(place[1], place[0], "div.", ha="center", va="center", color="0.4")
        image = _image(ax, cells, panel)
        _write(ax, cells, panel, decimals=3 if across <= 10 else 2)
        plotting.label_powers(ax.xaxis, columns, places=range(len(columns)))
        plotting.label_powers(ax.yaxis, rows, places=range(len(rows)))
        ax.tick_params(axis="x", rotation=90 if len(columns) > MOST_TICKS else 0)
        ax.set(title=panel.title, xlabel=x, ylabel=y)
    if len({(panel.best, panel.worst) for panel in panels}) == 1:  # panels of several tasks have scales of their own
        figure.colorbar(image, ax=grid, label=panels[0].metric, fraction=0.05, pad=0.02)
    return figure


def _image(ax: "Axes", cells: Cells, panel: _Panel) -> Any:
    from matplotlib import colormaps

    low, high = min(panel.best, panel.worst), max(panel.best, panel.worst)
    colours = colormaps["viridis_r" if lower_is_better(panel.metric) else "viridis"].with_extremes(bad="white")
    return ax.imshow(cells, cmap=colours, vmin=low, vmax=max(high, low + 1e-9), origin="lower", aspect="auto")


def _write(ax: "Axes", cells: Cells, panel: _Panel, *, decimals: int) -> None:
    """The numbers, and a box around the best."""
    from matplotlib.patches import Rectangle

    for (row, column), value in np.ndenumerate(cells):
        if np.isfinite(value):
            share = (value - panel.worst) / (panel.best - panel.worst) if panel.best != panel.worst else 1.0
            text = f"{value:.{decimals}f}"
            text = text.replace("0.", ".", 1) if abs(value) < 1 else text
            ax.text(column, row, text, ha="center", va="center", color="black" if share > 0.5 else "white")
            if value == panel.best:
                ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, **BOX))


def _listed(panels: Sequence[_Panel], _: _Roles) -> "Figure":
    """A row for each configuration, the best at the top: a dot for each run, and a line at the mean."""
    import matplotlib.pyplot as plt

    rows = [panel.sound[:MOST_ROWS] for panel in panels]
    height = 0.17 * sum(map(len, rows)) + 0.7 * len(rows) + 0.4
    figure, grid = plt.subplots(len(rows), 1, figsize=(plotting.DOUBLE, height), squeeze=False)
    for ax, panel, own in zip(grid.flat, panels, rows, strict=True):
        keys = list(dict.fromkeys(key for each in own for key in each.settings))
        names = short_names(keys) if len(keys) > 1 else dict.fromkeys(keys, "")
        labels = [", ".join(f"{names[k]} {text_of(v)}".strip() for k, v in each.settings.items()) for each in own]
        for place, each in enumerate(own):
            ax.plot(each.values, [place] * len(each.values), "o", color=plotting.COLOURS[0], markersize=4, alpha=0.7)
            ax.plot([each.mean] * 2, [place - 0.3, place + 0.3], color="black", lw=1.5)
        ax.set_yticks(range(len(own)), labels)
        ax.invert_yaxis()
        ax.set(title=panel.title, xlabel=panel.metric, ylabel=keys[0] if len(keys) == 1 else "")
        ax.grid(axis="x", color="0.9", lw=0.6)
        ax.set_axisbelow(True)
    return figure


def _grid(
    panels: Sequence[_Panel], size: tuple[float, float], *, sharex: bool = False
) -> tuple["Figure", list["Axes"]]:
    """The figure and an axes for each panel, in rows of at most ACROSS."""
    import matplotlib.pyplot as plt

    across = min(len(panels), ACROSS if size[0] * ACROSS <= WIDEST else 2)
    down = -(-len(panels) // across)
    width = max(plotting.SINGLE, min(size[0] * across + 0.8, WIDEST))
    figure, grid = plt.subplots(down, across, figsize=(width, size[1] * down + 0.6), squeeze=False, sharex=sharex)
    for ax in grid.flat[len(panels) :]:
        ax.set_visible(False)
    return figure, list(grid.flat[: len(panels)])


def _diverged(configuration: Configuration) -> bool:
    return bool(configuration.done) and not math.isfinite(configuration.mean)
