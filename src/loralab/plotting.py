"""The style of all figures: widths, colours, ticks, caption, and saving. Imports nothing from loralab."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from cycler import cycler

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "COLOURS",
    "DOUBLE",
    "EIGHT_POINT",
    "LONGEST_LINE",
    "SINGLE",
    "STYLE",
    "footnote",
    "label_powers",
    "legend_below",
    "save",
    "short",
    "style",
]

SINGLE, DOUBLE = 3.3, 6.9  # inches: one and both columns of a two-column paper


COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito 2008


LONGEST_LINE = 0.0072  # of a caption: inches per character and point of font size


STYLE: dict[Any, Any] = {
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 6,
    "ytick.labelsize": 6,
    "legend.fontsize": 6,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=COLOURS),
    "lines.linewidth": 1.2,
    "lines.markersize": 3,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "pdf.fonttype": 42,  # embeds text as text, not outlines
    "svg.hashsalt": "loralab",
    "figure.constrained_layout.use": True,
}


_SIZES = ("font.size", "axes.titlesize", "axes.labelsize", "xtick.labelsize", "ytick.labelsize", "legend.fontsize")
EIGHT_POINT: dict[Any, Any] = dict.fromkeys(_SIZES, 8)  # over STYLE, for figures that are shown at their own width


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Inside, figures have the common style and are drawn without a display."""
    with mpl.rc_context(STYLE):
        mpl.use("Agg")
        yield


def save(figure: "Figure", stem: Path) -> list[Path]:
    """Writes <stem>.png and <stem>.pdf (replacing a suffix of `stem`); equal figures give equal bytes."""
    from matplotlib import pyplot

    stem.parent.mkdir(parents=True, exist_ok=True)
    png, pdf = stem.with_suffix(".png"), stem.with_suffix(".pdf")
    figure.savefig(png, dpi=200, metadata={"Software": None})
    figure.savefig(pdf, metadata={"CreationDate": None, "Creator": None, "Producer": None})
    pyplot.close(figure)
    return [png, pdf]


def footnote(figure: "Figure", caption: str) -> None:
    """Puts the caption beneath the panels, wrapped to the figure's width; the figure grows by its height."""
    import textwrap

    size = 5.5
    width, height = figure.get_size_inches()
    lines = textwrap.wrap(caption, width=round(width / (LONGEST_LINE * size)))
    extra = (len(lines) * 1.3 + 1) * size / 72
    figure.set_size_inches(width, height + extra)
    engine = figure.get_layout_engine()
    if engine is not None:
        share = height / (height + extra)
        engine.set(rect=(0, 1 - share, 1, share))  # type: ignore[call-arg]  # the keys depend on the engine
    text = figure.text(0.01, 0.3 * size / 72 / (height + extra), "\n".join(lines), size=size, color="0.35", va="bottom")
    text.set_in_layout(False)


def label_powers(axis: Any, values: Iterable[Any], *, places: Sequence[float] | None = None) -> None:
    """Puts ticks at exactly these values of a logarithmic axis, with the labels of `short` (3.2e-3)."""
    numbers = [float(value) for value in values]
    axis.set_ticks(numbers if places is None else places, [short(number) for number in numbers])
    if places is None:
        axis.set_minor_locator(mpl.ticker.NullLocator())


def short(value: float) -> str:
    """The number in short form: 3.2e-3, 1.28e-2, 0.25, 16, 4096."""
    if 0.1 <= value < 10_000:
        return f"{float(f'{value:.{3 if value < 1 else 4}g}'):g}"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def legend_below(axes: "Axes", columns: int) -> None:
    """Puts the legend below the panel, where it covers no data."""
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=columns)
