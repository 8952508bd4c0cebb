"""Common parts of all figures: the style, ticks, the caption beside them, and equal bytes for equal figures."""

import os
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot
from PIL import Image

from loralab import plotting
from loralab.errors import UserError
from tests.analysis.frames import distinct, drawn, made


@pytest.mark.parametrize(
    ("value", "text"),
    [(3.2e-3, "3.2e-3"), (0.0128, "1.28e-2"), (16, "16"), (0.25, "0.25"), (0.2048, "0.205"), (1e-4, "1e-4"),
     (4096.0, "4096"), (65536, "6.55e4")],
)  # fmt: skip
def test_a_tick_is_written_short(value: float, text: str) -> None:
    assert plotting.short(value) == text


def test_the_style_is_that_of_the_figures_within_and_ends_with_them() -> None:
    before = mpl.rcParams["font.size"]
    with plotting.style():
        assert mpl.rcParams["font.size"] == plotting.STYLE["font.size"] != before
    assert mpl.rcParams["font.size"] == before


def test_a_figure_is_written_as_png_and_pdf_with_the_same_bytes_each_time(tmp_path: Path) -> None:
    written = []
    for stem in ("one", "two.png"):
        with plotting.style():
            figure, axes = pyplot.subplots()
            axes.plot([1, 2], [1, 4])
            written.append(plotting.save(figure, tmp_path / "new" / stem))
            assert not pyplot.get_fignums()
    assert [path.name for path in written[1]] == ["two.png", "two.pdf"]
    assert [path.read_bytes() for path in written[0]] == [path.read_bytes() for path in written[1]]
    assert written[0][0].read_bytes().startswith(b"\x89PNG") and written[0][1].read_bytes().startswith(b"%PDF")


def test_a_logarithmic_axis_has_ticks_at_exactly_the_values() -> None:
    with plotting.style():
        figure, axes = pyplot.subplots()
        axes.set_xscale("log")
        plotting.label_powers(axes.xaxis, [1e-3, 3.2e-3, 0.25])
        assert axes.get_xticks().tolist() == [1e-3, 3.2e-3, 0.25] and not len(axes.get_xticks(minor=True))
        assert [label.get_text() for label in axes.get_xticklabels()] == ["1e-3", "3.2e-3", "0.25"]
        plotting.label_powers(axes.xaxis, [4, 16], places=[0, 1])
        assert axes.get_xticks().tolist() == [0, 1]
        pyplot.close(figure)


def test_where_a_line_leaves_the_panel_at_its_top_its_next_loss_stands_above_that_of_another() -> None:
    with plotting.style():
        figure, axes = pyplot.subplots()
        axes.plot([1, 2, 3, 4], [0.5, 0.4, 2.5, 3.5], color="blue")
        axes.plot([1, 2, 3], [1.5, 0.6, 3.12], color="red")
        plotting.show_lowest(axes, [0.4, 0.5, 0.6, 1.5, 2.5, 3.12, 3.5, float("nan")])
        assert 0.9 < axes.get_ylim()[1] < 1
        every: list[Any] = list(axes.texts)
        notes = {(text.get_text(), text.get_color(), text.xy[0]): text.get_position() for text in every}
        assert set(notes) == {("2.5 \u2191", "blue", 3), ("1.5 \u2191", "red", 1), ("3.1 \u2191", "red", 3)}
        lower, upper = (notes[f"{loss} \u2191", colour, 3] for loss, colour in (("2.5", "blue"), ("3.1", "red")))
        assert upper[1] - lower[1] >= plotting.SIZE
        pyplot.close(figure)


def test_a_caption_is_a_text_of_short_lines_beside_the_figure(tmp_path: Path) -> None:
    caption = "Mean of three seeds on fresh data with Student's interval. " * 5
    with drawn("first", made("first", distinct)) as figure:
        size = figure.get_size_inches().tolist()
        *pictures, text = plotting.save(figure, tmp_path / "one", caption.strip())
        assert figure.get_size_inches().tolist() == size and not figure.texts, "it takes no room of the panels"
    lines = text.read_text().splitlines()
    assert text == tmp_path / "one.txt" and all(path.is_file() for path in pictures)
    assert " ".join(lines) == caption.strip() and len(lines) == 3
    assert all(len(line) <= plotting.LINE for line in lines)


@pytest.mark.parametrize(("largest", "mode"), [(1_000_000, "RGB"), (1000, "P")])
def test_a_picture_is_as_wide_as_pages_show_it_and_a_large_one_has_256_colours(
    largest: int, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plotting, "LARGEST", largest)
    with plotting.style():
        figure, axes = pyplot.subplots(figsize=(plotting.DOUBLE, 3))
        axes.imshow(np.random.default_rng(0).random((20, 20)))
        png, _ = plotting.save(figure, tmp_path / "one")
    with Image.open(png) as picture:
        assert picture.width == round(plotting.DOUBLE * plotting.DPI) and picture.mode == mode


def test_a_heading_stands_above_the_panels_in_lines_that_fit(tmp_path: Path) -> None:
    with plotting.style():
        figure, axes = pyplot.subplots(figsize=(plotting.DOUBLE, 3))
        plotting.heading(figure, "The directions of one run and of another, by layer and map. " * 4)
        figure.set_dpi(plotting.DPI)  # the width of small letters depends on it
        figure.canvas.draw()
        (text,) = [each for each in figure.texts if each.get_text()]
        box, panel = text.get_window_extent(), axes.get_tightbbox()
        assert panel is not None and panel.y1 <= box.y0 and "\n" in text.get_text()
        assert box.x0 >= 0 and box.x1 <= figure.bbox.width
        pyplot.close(figure)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("", "which names a folder; name a file, as figure.png"),
        ("..", "which names a folder; name a file, as figure.png"),
        ("folder", "which names a folder; name a file, as figure.png"),
        ("fifo.png", "fifo.png: is there already and is not a regular file; name another"),
    ],
)
def test_a_figure_is_written_to_a_regular_file(
    name: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo.png")
    Path("folder").mkdir()
    with pytest.raises(UserError, match=line):
        plotting.named_file(Path(name))


def test_a_name_may_contain_dots_and_gets_a_pictures_ending() -> None:
    assert plotting.named_file(Path("ratio-16.5")) == Path("ratio-16.5.png")
    assert plotting.named_file(Path("a.pdf")) == Path("a.pdf")
