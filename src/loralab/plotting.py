"""The style of all figures: widths, colours, ticks, and saving with a caption."""

import contextlib
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from cycler import cycler

from loralab.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

__all__ = [
    "COLOURS",
    "DOUBLE",
    "DPI",
    "LINE",
    "LINES",
    "SINGLE",
    "SIZE",
    "STYLE",
    "heading",
    "label_powers",
    "named_file",
    "save",
    "short",
    "show_lowest",
    "style",
    "wrapped",
]

SINGLE, DOUBLE = 3.4, 6.9  # inches: one and both columns of a two-column paper
DPI = 150  # a figure of both columns is 1,035 pixels wide, and README and docs show about 900 of them
SIZE = 8  # points, of all text
LARGEST = 160_000  # bytes of a PNG
LINE, LINES = 120, 3  # of a caption: characters in a line, and lines


COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito 2008


LONGEST_LINE = 0.0072  # of a heading: inches per character and point of font size


_SIZES = ("font.size", "axes.titlesize", "axes.labelsize", "xtick.labelsize", "ytick.labelsize", "legend.fontsize")
STYLE: dict[Any, Any] = {
    **dict.fromkeys((*_SIZES, "legend.title_fontsize", "figure.titlesize"), SIZE),
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "legend.handlelength": 1.4,
    "legend.columnspacing": 1.2,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=COLOURS),
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "pdf.fonttype": 42,  # embeds text as text, not outlines
    "svg.hashsalt": "loralab",
    "figure.constrained_layout.use": True,
}


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Inside, figures have the common style and are drawn without a display."""
    with mpl.rc_context(STYLE):
        mpl.use("Agg")
        yield


def save(figure: "Figure", stem: Path, caption: str = "") -> list[Path]:
    """Writes <stem>.png and <stem>.pdf (replacing a suffix of `stem`), and a caption as <stem>.txt in lines of `LINE`.

    Equal figures give equal bytes.
    """
    from matplotlib import pyplot
    from PIL import Image

    stem.parent.mkdir(parents=True, exist_ok=True)
    png, pdf, txt = (stem.with_suffix(f".{kind}") for kind in ("png", "pdf", "txt"))
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=DPI, metadata={"Software": None})
    pixels = Image.open(drawn).convert("RGB")
    pixels.save(png, optimize=True, dpi=(DPI, DPI))
    if png.stat().st_size > LARGEST:  # 256 colours take a third of the bytes, but give a smooth colour bar steps
        pixels.quantize(256, dither=Image.Dither.NONE).save(png, optimize=True, dpi=(DPI, DPI))
    figure.savefig(pdf, metadata={"CreationDate": None, "Creator": None, "Producer": None})
    pyplot.close(figure)
    if caption:
        txt.write_text(f"{wrapped(caption)}\n", encoding="utf-8")
    return [png, pdf, *([txt] if caption else [])]


def named_file(to: Path) -> Path:
    """--to of a figure, a PNG or a PDF, checked before it is drawn; UserError for a folder. A name may contain dots."""
    if to.name in ("", "..") or to.is_dir():
        raise UserError(f"--to: got '{to}', which names a folder; name a file, as figure.png")
    to = to if to.suffix in (".png", ".pdf") else to.with_name(f"{to.name}.png")
    for each in (to.with_suffix(".png"), to.with_suffix(".pdf")):
        if each.exists() and not each.is_file():
            raise UserError(f"{each}: is there already and is not a regular file; name another")
    return to


def wrapped(caption: str) -> str:
    """The caption in lines of at most `LINE` characters."""
    import textwrap

    return textwrap.fill(caption, LINE, break_long_words=False, break_on_hyphens=False)


def heading(figure: "Figure", text: str) -> None:
    """Puts a text above the panels, wrapped to the figure's width."""
    import textwrap

    width = round(figure.get_size_inches()[0] / (LONGEST_LINE * SIZE))
    figure.suptitle(textwrap.fill(text, width), x=0.01, ha="left", size=SIZE)


def label_powers(axis: Any, values: Iterable[Any], *, places: Sequence[float] | None = None) -> None:
    """Puts ticks at exactly these values of a logarithmic axis, with the labels of `short` (3.2e-3)."""
    numbers = [float(value) for value in values]
    axis.set_ticks(numbers if places is None else places, [short(number) for number in numbers])
    if places is None:
        axis.set_minor_locator(mpl.ticker.NullLocator())


def show_lowest(axes: "Axes", losses: Iterable[float], *, above: float = 0.5) -> None:
    """Shows the losses up to `above` the lowest one; where a line leaves the panel, its next loss stands."""
    finite = [loss for loss in losses if math.isfinite(loss)]
    lowest, highest = min(finite), min(max(finite), min(finite) + above)
    margin = 0.05 * (highest - lowest) + 0.01
    axes.set_ylim(lowest - margin, highest + margin)
    for line in axes.get_lines():
        _note_above(axes, line, highest + margin)


def _note_above(axes: "Axes", line: "Line2D", top: float) -> None:
    """Writes `3.2 ↑` above the panel for the points of a line that follow or precede a shown one."""
    x, y = (np.asarray(each, dtype=float) for each in line.get_data())
    shown = y <= top
    beside = np.append(shown[1:], False) | np.append(False, shown[:-1])
    for at in np.flatnonzero((y > top) & beside):
        there = sum(text.xy[0] == x[at] for text in axes.texts if isinstance(text, mpl.text.Annotation))  # of others
        axes.annotate(
            f"{y[at]:.2g} \u2191", (x[at], top), xytext=(0, 2 + 1.3 * SIZE * there), textcoords="offset points",
            color=line.get_color(), ha="center", va="bottom",
        )  # fmt: skip


def short(value: float) -> str:
    """The number in short form: 3.2e-3, 1.28e-2, 0.25, 16, 4096."""
    if 0.1 <= value < 10_000:
        return f"{float(f'{value:.{3 if value < 1 else 4}g}'):g}"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"
