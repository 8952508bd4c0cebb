"""The figure of sampled values: a panel for each axis, with each configuration once and a ring around the best."""

import random
import warnings
from typing import Any

from loralab import plotting
from loralab.inspect.sampled_figure import are_sampled
from loralab.inspect.sweep_figure import drawn
from loralab.runs.rows import Row
from loralab.sweeps.ranking import rankings
from tests.sweeps.made_rows import grid, row


def sampled(number: int) -> list[Row]:
    """Runs at random rates and dropouts, of two methods; the last diverged."""
    draw = random.Random(0)
    rows = [
        row(0.5 + at / 100, optim__lr=10 ** draw.uniform(-4, -2), lora__dropout=draw.uniform(0, 0.3), method=method)
        for at, method in zip(range(number - 1), ["lora", "dora"] * number, strict=False)
    ]
    return [*rows, row(None, status="diverged", optim__lr=0.02, lora__dropout=0.1, method="lora")]


def test_each_axis_has_a_panel_with_every_configuration_that_has_a_mean() -> None:
    rows = sampled(9)
    (ranking,) = found = rankings(rows, metric=None, varied=["optim.lr", "lora.dropout", "method"], free=True)
    with plotting.style(), warnings.catch_warnings():
        warnings.simplefilter("error")
        figure: Any = drawn(found)
        figure.canvas.draw()
    assert [ax.get_xlabel() for ax in figure.axes] == list(ranking.axes) and len(ranking.axes) == 3
    panels = {ax.get_xlabel(): ax for ax in figure.axes}
    rates, methods = panels["optim.lr"], panels["method"]
    dots, ring = rates.lines
    assert (len(dots.get_xdata()), rates.get_xscale()) == (8, "log")
    best = rows[7]
    assert (ring.get_xdata()[0], ring.get_ydata()[0]) == (best.settings["optim.lr"], best.scores["validation/accuracy"])
    assert [label.get_text() for label in methods.get_xticklabels()] == ["dora", "lora"]


def test_a_grid_is_not_taken_for_sampled_values_nor_are_a_few_runs_or_one_axis() -> None:
    def of(rows: list[Row]) -> bool:
        (found,) = rankings(rows, metric=None, varied=["optim.lr", "lora.dropout", "lora.ratio"], free=True)
        return are_sampled(found.axes, found.configurations)

    assert of(sampled(9)) and not of(sampled(4))
    assert not of(grid(lambda optim__lr, lora__ratio: 0.5, optim__lr=[1e-3, 2e-3, 4e-3], lora__ratio=[1, 4]))
    assert not of([row(0.5, optim__lr=rate / 1000) for rate in range(1, 9)])
