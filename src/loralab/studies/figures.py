"""analysis/results/<study>.csv -> analysis/figures/<study>.{png,pdf}. Reads CSV and configuration alone; no torch.

A study's analysis has `reduce` (or, where nothing is trained, `wanted` and `measure`), `draw`, `caption`, `summary` and
`claims`; what their figures share stands here: widths, style, colours, ticks, and the lines beneath that say what was
run.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import pandas as pd
from cycler import cycler

from loralab.config.overrides import written
from loralab.errors import UserError
from loralab.studies import results
from loralab.sweeps.study import open_study, studies

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "COLOURS",
    "DOUBLE",
    "NAMES",
    "SETTING",
    "SINGLE",
    "code",
    "draw",
    "footnote",
    "label_powers",
    "legend_below",
    "main",
    "module",
    "names",
    "provenance",
    "save",
    "seeds",
    "setting",
    "short",
    "style",
    "tasks",
    "whole_mean",
]

SINGLE, DOUBLE = 3.3, 6.9  # inches: a column, and both, of a two-column paper
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito 2008
NAMES = {"rotten_tomatoes": "Rotten Tomatoes", "trec": "TREC", "imdb": "IMDb", "minilm": "MiniLM", "tiny": "tiny"}
SETTING = ("model", "lora.rank", "lora.alpha", "lora.targets", "train.steps", "train.epochs", "train.batch_size")
LONGEST_LINE = 0.0072  # of a caption: inches a character and point of its size

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
    "pdf.fonttype": 42,  # text stays text
    "svg.hashsalt": "loralab",
    "figure.constrained_layout.use": True,
}


def names() -> list[str]:
    """The studies that have an analysis with a figure and a CSV to draw it from."""
    return [name for name in studies() if (results.ANALYSIS / "results" / f"{name}.csv").is_file()]


def module(name: str) -> ModuleType:
    """A study's analysis, analysis/<name>.py or the one that its file names; UserError where it has none."""
    with open_study(name) as study:
        own = results.analysis_of(study)
    found = results.analysis(own)
    if found is None:
        raise UserError(f"study {name!r} has no analysis/{own}.py; these have a figure: {', '.join(names()) or 'none'}")
    return found


@contextlib.contextmanager
def style() -> Iterator[None]:
    """The one style of all figures, drawn without a screen."""
    with mpl.rc_context(STYLE):
        mpl.use("Agg")
        yield


def draw(name: str, overrides: Sequence[str] = (), *, store: Path = Path("outputs")) -> list[Path]:
    """Draws a study's figure from its CSV; the files that it wrote.

    Without overrides, analysis/results/<name>.csv to analysis/figures/; with those that a part of the study was
    collected with, the store's results/ to its figures/. Raises UserError where the CSV lacks a run that is wanted.
    """
    analysis = module(name)
    path = results.target(name, overrides, store)
    frame = results.load(name, *overrides, path=path)
    root = store if overrides else results.ANALYSIS
    with style():
        figure = analysis.draw(frame)
        footnote(figure, analysis.caption(frame))
        return save(figure, root / "figures" / path.relative_to(root / "results"))


def main(file: str) -> None:
    """`python analysis/<study>.py`: the figure from the committed CSV."""
    import sys

    try:
        print(*draw(Path(file).stem), sep="\n")
    except UserError as error:
        sys.exit(f"error: {error}")


def save(figure: "Figure", stem: Path) -> list[Path]:
    """<stem>.png and <stem>.pdf (a suffix of it is replaced), the same bytes for the same figure."""
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
        engine.set(rect=(0, 1 - share, 1, share))  # type: ignore[call-arg]  # which keys there are depends on the engine
    text = figure.text(0.01, 0.3 * size / 72 / (height + extra), "\n".join(lines), size=size, color="0.35", va="bottom")
    text.set_in_layout(False)


def setting(frame: pd.DataFrame) -> str:
    """`MiniLM, LoRA with r = alpha = 8 on q and v, 100 steps of 32`: what runs share, for a caption; from SETTING."""

    def one(key: str) -> str:
        values = frame[key].dropna().unique()
        return " or ".join(NAMES.get(value, value) if isinstance(value, str) else written(value) for value in values)

    same = (frame["lora.rank"] == frame["lora.alpha"]).all()
    alpha = "" if same else f", alpha = {one('lora.alpha')}"
    rank = f"r = {'alpha = ' if same else ''}{one('lora.rank')}{alpha}"
    length = f"{one('train.steps')} steps" if frame["train.steps"].notna().all() else f"{one('train.epochs')} epochs"
    targets = " and ".join(one("lora.targets").rsplit(",", 1)).replace(",", ", ")
    return f"{one('model')}, LoRA with {rank} on {targets}, {length} of {one('train.batch_size')}"


def provenance(frame: pd.DataFrame) -> str:
    """`432 runs (3 diverged), code 1a2b3c4 (+1 other)`: the end of a caption."""
    runs = frame.drop_duplicates("hash")
    diverged = int((runs["status"] == "diverged").sum())
    return f"{len(runs)} runs ({diverged} diverged), {code(runs)}"


def code(frame: pd.DataFrame) -> str:
    """`code 1a2b3c4 (+1 other)`: the commits of the rows, the commonest first; the caption's end where none trained."""
    versions = frame["commit"].fillna("unknown").astype(str).str[:7].value_counts().index
    others = f" (+{len(versions) - 1} other)" if len(versions) > 1 else ""
    return f"code {versions[0]}{others}"


def whole_mean(values: "pd.Series[float]") -> float:
    """The mean over the seeds; NaN where one of them diverged: what is left would flatter the cell."""
    return float(values.mean(skipna=False))


def tasks(frame: pd.DataFrame) -> str:
    """`TREC`, or several with commas."""
    return ", ".join(NAMES.get(name, name) for name in frame["task"].unique())


def seeds(frame: pd.DataFrame) -> str:
    """`3 seeds`, `1 seed`."""
    count = frame["seed"].nunique()
    return f"{count} seed{'s' if count != 1 else ''}"


def label_powers(axis: Any, values: Iterable[Any], *, places: Sequence[float] | None = None) -> None:
    """Ticks at exactly these values of a logarithmic axis, as short as they can be written (3.2e-3)."""
    numbers = [float(value) for value in values]
    axis.set_ticks(numbers if places is None else places, [short(number) for number in numbers])
    if places is None:
        axis.set_minor_locator(mpl.ticker.NullLocator())


def short(value: float) -> str:
    """3.2e-3, 1.28e-2, 0.25, 16, 4096."""
    if 0.1 <= value < 10_000:
        return written(float(f"{value:.{3 if value < 1 else 4}g}"))
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def legend_below(axes: "Axes", columns: int) -> None:
    """The legend under the panel, so that it hides nothing."""
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=columns)
