"""The figure of a sweep: what is drawn where, and that every mean is in it."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loralab import plotting
from loralab.errors import UserError
from loralab.inspect.sweep_figure import MOST_PANELS, drawn
from loralab.runs.rows import Row
from loralab.sweeps.ranking import rankings
from tests.sweeps.made_rows import grid, row

RATES = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)


def figure(rows: Sequence[Row], varied: Sequence[str] = ()) -> Any:
    """The figure, laid out without a warning."""
    with plotting.style(), warnings.catch_warnings():
        warnings.simplefilter("error")
        found = drawn(rankings(rows, metric=None, varied=varied))
        found.canvas.draw()
        return found


def panels(found: Any) -> list[Any]:
    return [ax for ax in found.axes if ax.get_visible() and ax.get_label() != "<colorbar>"]


def test_one_numeric_axis_is_a_line_through_the_means_with_a_dot_for_each_run() -> None:
    (ax,) = panels(figure(grid(lambda optim__lr: 0.5 + optim__lr, seeds=2, optim__lr=RATES)))
    line, dots = ax.lines
    np.testing.assert_allclose(line.get_data(), [RATES, [0.505 + rate for rate in RATES]])
    assert len(dots.get_xdata()) == 2 * len(RATES) and ax.get_xscale() == "log"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("optim.lr", "validation/accuracy")


def test_a_second_axis_of_words_is_a_colour() -> None:
    rows = grid(lambda method, optim__lr: 0.5, method=["lora", "full"], optim__lr=RATES)
    found = figure(rows)
    assert len(panels(found)) == 1
    assert [text.get_text() for text in found.legends[0].get_texts()] == ["full", "lora"]


def test_two_numeric_axes_are_a_heatmap_with_a_box_around_the_best() -> None:
    rows = grid(lambda lora__ratio, optim__lr: 0.5 + optim__lr * lora__ratio, lora__ratio=[1, 4], optim__lr=RATES)
    (ax,) = panels(figure(rows))
    cells = ax.images[0].get_array()
    np.testing.assert_allclose(cells, [[0.5 + rate * ratio for rate in RATES] for ratio in (1, 4)])
    (box,) = ax.patches
    assert box.get_xy() == (3.5, 0.5), "the largest rate of the upper row"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("optim.lr", "lora.ratio")


def test_what_was_not_tried_is_blank_and_what_diverged_says_so() -> None:
    rows = [row(0.5, lora__ratio=r, optim__lr=lr) for r, lr in ((1, 1e-3), (1, 2e-3), (4, 1e-3))]
    (ax,) = panels(figure([*rows, row(None, status="diverged", lora__ratio=4, optim__lr=4e-3)]))
    cells = ax.images[0].get_array()
    assert np.isnan(np.ma.filled(cells, np.nan)).tolist() == [[False, False, True], [False, True, True]]
    assert [text.get_text() for text in ax.texts].count("div.") == 1


def test_more_axes_are_small_multiples_in_the_order_of_their_values() -> None:
    axes: dict[str, Any] = {"lora__rank": [8, 2], "lora__ratio": [1, 4, 16], "optim__lr": RATES}
    found = figure(grid(lambda lora__rank, lora__ratio, optim__lr: 0.5 + lora__rank / 100, **axes))
    assert [ax.get_title(loc="left") for ax in panels(found)] == ["rank 2", "rank 8"]
    assert len({ax.images[0].get_clim() for ax in panels(found)}) == 1, "one scale"


def test_only_the_best_panels_are_drawn_where_there_are_too_many() -> None:
    ranks = list(range(1, MOST_PANELS + 3))
    words: dict[str, Any] = {"model": [f"m{n}" for n in ranks], "lora__ratio": [1, 4], "optim__lr": RATES[:2]}
    rows = grid(lambda model, lora__ratio, optim__lr: 0.5 + int(model[1:]) / 100, **words)
    found = figure(rows)
    assert len(panels(found)) == MOST_PANELS and "2 panels left out" in found.get_suptitle()


def test_tasks_have_panels_with_scales_of_their_own() -> None:
    axes: dict[str, Any] = {"task": ["trec", "imdb"], "optim__lr": RATES}
    one, other = panels(figure(grid(lambda task, optim__lr: 0.5 + optim__lr + (task == "imdb") / 5, **axes)))
    assert [ax.get_title(loc="left") for ax in (one, other)] == ["trec", "imdb"]
    assert one.get_ylim()[1] < other.get_ylim()[0]


def test_without_a_numeric_axis_each_configuration_is_a_row_the_best_at_the_top() -> None:
    rows = grid(lambda method: {"lora": 0.5, "full": 0.6, "bitfit": 0.4}[method], 2, method=["lora", "full", "bitfit"])
    (ax,) = panels(figure(rows))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["full", "lora", "bitfit"]
    assert ax.yaxis_inverted() and ax.get_ylabel() == "method"


def test_a_collapsed_configuration_does_not_flatten_the_others() -> None:
    scores = dict(zip(RATES, (0.80, 0.85, 0.86, 0.84, 0.10), strict=True))
    (ax,) = panels(figure(grid(lambda optim__lr: scores[optim__lr], optim__lr=RATES)))
    assert ax.get_ylim()[0] > 0.7


def test_an_axis_that_some_configurations_lack_is_a_colour() -> None:
    rows = grid(lambda lora__ratio, optim__lr: 0.5, lora__ratio=[1, 4], optim__lr=RATES)
    rows += grid(lambda optim__lr: 0.6, optim__lr=RATES)
    found = figure(rows)
    assert [text.get_text() for text in found.legends[0].get_texts()] == ["1", "4", "none"]


def test_seeds_alone_have_no_figure() -> None:
    with pytest.raises(UserError, match="nothing to draw"):
        figure(grid(lambda: 0.5, seeds=3))
    with pytest.raises(UserError, match="no configuration has a score yet"):
        figure([row(None, status="missing", optim__lr=rate) for rate in RATES])


def test_equal_sweeps_have_equal_figures(tmp_path: Path) -> None:
    rows = grid(lambda lora__ratio, optim__lr: 0.5 + optim__lr, lora__ratio=[1, 4], optim__lr=RATES)
    files = [plotting.save(figure(rows), tmp_path / name)[0].read_bytes() for name in ("a.png", "b.png")]
    assert files[0] == files[1]
