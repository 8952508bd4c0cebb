"""The figure of a session: nothing is lost from it, and its text can be read."""

import math
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest

from loralab import plotting
from loralab.tuning import figure
from tests.tuning.test_tuned import example

SMALLEST = 8  # points


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are saved."""
    kept: list[Any] = []
    saved = plotting.save

    def save(made: Any, stem: Path) -> list[Path]:
        made.canvas.draw()
        kept.append(made)
        return saved(made, stem)

    monkeypatch.setattr(plotting, "save", save)
    return kept


def points(axes: Any) -> list[tuple[float, float]]:
    """The points of the markers, without those of the legend."""
    return [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines if len(line.get_xdata()) == 1]


def test_every_run_is_a_point_and_one_that_diverged_is_at_the_upper_edge(drawn: list[Any], tmp_path: Path) -> None:
    tuned = example(tmp_path)
    assert figure.draw(tuned) == tmp_path / "tune.png"
    (axes,) = drawn[0].axes
    assert sorted(rate for rate, _ in points(axes)) == sorted(run["optim.lr"] for run in tuned.runs)
    shown = [loss for rate, loss in points(axes) if rate == 6.4e-3]
    assert shown == [axes.get_ylim()[1]] and all(math.isfinite(loss) for _, loss in points(axes))


def test_no_text_is_smaller_than_eight_points(drawn: list[Any], tmp_path: Path) -> None:
    figure.draw(example(tmp_path))
    texts = [text for text in drawn[0].findobj(mpl.text.Text) if text.get_text()]
    assert min(text.get_fontsize() for text in texts) >= SMALLEST


def test_each_ratio_has_a_colour_and_its_own_line_of_the_law(drawn: list[Any], tmp_path: Path) -> None:
    runs = [{**run, "lora.ratio": ratio} for run in example(tmp_path).runs for ratio in (4.0, 16.0)]
    predicted = [{"lora.ratio": 4.0, "optim.lr": 2e-3}, {"lora.ratio": 16.0, "optim.lr": 1e-3}]
    figure.draw(example(tmp_path, runs=runs, predicted=predicted, settings={"optim.lr": 1.6e-3, "lora.ratio": 4.0}))
    (axes,) = drawn[0].axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels[:2] == ["λ = 4", "λ = 16"] and labels.count("the law") == 1
    lines = {line.get_xdata()[0]: line.get_color() for line in axes.lines if line.get_linestyle() == "--"}
    assert lines == {2e-3: plotting.COLOURS[0], 1e-3: plotting.COLOURS[1]}


def test_one_rate_alone_and_one_run_alone_can_be_drawn(drawn: list[Any], tmp_path: Path) -> None:
    found = example(tmp_path)
    figure.draw(example(tmp_path, runs=found.runs[1:2], plateau=(1.6e-3, 1.6e-3)), tmp_path / "other.png")
    assert (tmp_path / "other.png").is_file() and drawn
