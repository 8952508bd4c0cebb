"""Common parts of all figures: the style, ticks, the caption, and equal bytes for equal figures."""

from pathlib import Path

import matplotlib as mpl
import pytest
from matplotlib import pyplot

from loralab import plotting
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
    written, before = [], pyplot.get_fignums()  # other tests of this process may have left some
    for stem in ("one", "two.png"):
        with plotting.style():
            figure, axes = pyplot.subplots()
            axes.plot([1, 2], [1, 4])
            written.append(plotting.save(figure, tmp_path / "new" / stem))
            assert pyplot.get_fignums() == before
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


@pytest.mark.parametrize("sentences", [1, 12])
def test_the_caption_stands_beneath_the_panels_and_the_figure_grows_by_its_height(sentences: int) -> None:
    caption = "Mean of three seeds on fresh data with Student's interval. " * sentences
    with drawn("first", made("first", distinct)) as figure:
        figure.set_dpi(200)  # the resolution of saved files; the width of small letters depends on it
        width, height = figure.get_size_inches()
        plotting.footnote(figure, caption)
        figure.canvas.draw()
        (text,) = figure.texts
        box = text.get_window_extent().transformed(figure.dpi_scale_trans.inverted())  # inches
        grown = figure.get_size_inches()
        assert grown[0] == width and box.height < grown[1] - height < 1.2 * box.height + 0.1
        assert " ".join(text.get_text().split()) == caption.strip()
        assert ("\n" in text.get_text()) is (sentences > 1)
        assert 0 <= box.x0 < box.x1 <= width and box.y0 >= 0
        for axes in figure.axes:
            tight = axes.get_tightbbox()
            assert tight is not None
            around = tight.transformed(figure.dpi_scale_trans.inverted())
            assert around.y0 >= box.y1 and around.y1 <= grown[1] + 1e-6
