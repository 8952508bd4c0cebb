"""One study's part of a report: its hypothesis, questions with their verdicts, figure, table, runs and origin."""

import hashlib
import io
import platform
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

import pandas as pd

from loralab import plotting
from loralab.studies.questions import Question
from loralab.studies.report_runs import Runs, runs_of, varying
from loralab.studies.report_table import Table, table, text, traced, traced_by
from loralab.studies.study_module import StudyModule
from loralab.studies.topics import topic_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Picture", "Section", "section"]

TOOLS = ("loralab", "matplotlib", "numpy", "pandas")


@dataclass(frozen=True)
class Picture:
    """An SVG with its size in CSS pixels."""

    svg: str
    width: int
    height: int
    alt: str
    caption: str


@dataclass(frozen=True)
class Section:
    """One study's part of the page.

    stem: names its files and its anchor; settings: the overrides that it was trained with; options: --store and --name
    of its commands; header: its hypothesis (`claim`), metric, command and cost (Study.header); unanswered: why its
    questions have no answer; csv: the text of its results; provenance: term -> lines; runs: None for what was measured.
    """

    name: str
    stem: str
    settings: tuple[str, ...]
    options: tuple[str, ...]
    header: Mapping[str, str]
    questions: tuple[Question, ...]
    unanswered: str
    picture: Picture
    table: Table
    csv: str
    provenance: Mapping[str, tuple[str, ...]]
    runs: Runs | None

    @property
    def topic(self) -> str:
        """The heading that it stands under."""
        return topic_of(self.name)

    @property
    def title(self) -> str:
        """Its primary question with a capital letter; its name where it asks none."""
        if not self.questions:
            return self.name
        asked = self.questions[0].text
        return asked[0].upper() + asked[1:]

    @property
    def words(self) -> str:
        """The study and its settings, as `loralab study` is given them."""
        return shlex.join((self.name, *self.settings))

    @property
    def arguments(self) -> str:
        """All that `loralab study` and `loralab report` are given for it."""
        return shlex.join((self.name, *self.settings, *self.options))


def section(
    name: str,
    frame: pd.DataFrame,
    analysis: StudyModule,
    *,
    questions: Sequence[Question],
    csv: str,
    header: Mapping[str, str],
    stem: str | None = None,
    settings: Sequence[str] = (),
    options: Sequence[str] = (),
    unanswered: str = "",
    train: Mapping[str, str] | None = None,
    directories: Mapping[str, str] | None = None,
) -> Section:
    """The section that a study's analysis makes from its CSV, with its questions.

    stem: None for the study's name; train, directories: as `runs_of` has them.
    """
    runs = runs_of(frame, train or {}, directories or {})
    return Section(
        name=name,
        stem=(stem or name).replace("/", "-"),
        settings=tuple(settings),
        options=tuple(options),
        header=header,
        questions=tuple(questions),
        unanswered=unanswered,
        picture=_picture(name, frame, analysis),
        table=_table(frame, analysis, of_runs=runs is not None),
        csv=csv,
        provenance=_provenance(frame, csv),
        runs=runs,
    )


def _table(frame: pd.DataFrame, analysis: StudyModule, *, of_runs: bool) -> Table:
    summary = analysis.summary(frame)
    if not of_runs:
        return table(summary)
    settings = varying(frame)
    if analysis.row_keys is None:
        return traced(summary, settings)
    return traced_by(summary, settings, analysis.row_keys(frame.drop_duplicates("hash")))


def _picture(name: str, frame: pd.DataFrame, analysis: StudyModule) -> Picture:
    """The study's figure as SVG, without date or random ids."""
    from matplotlib import pyplot

    stream = io.StringIO()
    with plotting.style():
        figure = analysis.draw(frame)
        shows = _shows(figure)
        figure.savefig(stream, format="svg", metadata={"Date": None})
        pyplot.close(figure)
    svg, caption = stream.getvalue(), analysis.caption(frame)
    size = re.search(r'<svg [^>]*?width="([\d.]+)pt" height="([\d.]+)pt"', svg)
    assert size is not None
    width, height = (round(float(points) * 96 / 72) for points in size.groups())
    alt = ". ".join([f"Figure of {name}: {_first_sentences(caption)}", *shows, "The numbers are in the table below."])
    return Picture(svg, width, height, alt, caption)


def _first_sentences(caption: str) -> str:
    """The caption without its last sentence, the origin, and without its full stop."""
    return re.sub(r"\. [^.]*\bcode [^.]*\.$", "", caption).rstrip(".")


def _shows(figure: "Figure") -> list[str]:
    """For screen readers: the heading, what each panel plots against what, and the panels' titles."""
    pairs: dict[str, None] = {}
    panels = []
    for axes in figure.axes:
        x, y = _plain(axes.get_xlabel()), _plain(axes.get_ylabel())
        panels += [title] if (title := _plain(axes.get_title("left") or axes.get_title())) else []
        if x or y:
            pairs[f"{y} against {x}" if x and y else x or y] = None
    parts = [_plain(figure.get_suptitle()), "; ".join(pairs), f"panels: {'; '.join(panels)}" if panels else ""]
    return [part for part in parts if part]


def _plain(label: str) -> str:
    """`lr_A` for matplotlib's `lr$_A$`, on one line."""
    plain = re.sub(r"\\(?:mathrm|mathit|mathbf|text)\b|[${}]", "", label)
    return " ".join(plain.replace(r"\lambda", "λ").split())


def _provenance(frame: pd.DataFrame, csv: str) -> dict[str, tuple[str, ...]]:
    """The runs, code and devices of a CSV, from the columns that it has; a run may have several rows."""
    identity = next((name for name in ("hash", "run") if name in frame), None)
    runs = frame if identity is None else frame.dropna(subset=[identity]).drop_duplicates(identity)
    found: dict[str, tuple[str, ...]] = {"Runs" if identity else "Rows": (str(len(runs)),)}
    for term, columns in {
        "Status": ("status",),
        "Code": ("commit", "diff"),
        "Device": ("device",),
        "Threads a run": ("threads",),
    }.items():
        if columns[0] in runs:
            kept = runs[[name for name in columns if name in runs]]
            found[term] = _counted([_named(term, values) for values in kept.itertuples(index=False)])
    digest = hashlib.sha256(csv.encode()).hexdigest()
    found["Results"] = (f"{len(frame)} rows, SHA-256 {digest[:16]}",)
    tools = [f"{name} {metadata.version(name)}" for name in TOOLS]
    found["Drawn with"] = (", ".join([*tools, f"Python {platform.python_version()}"]),)
    return found


def _named(term: str, values: Iterable[Any]) -> str:
    first, *rest = [None if pd.isna(value) else value for value in values]
    if term != "Code":
        return "not recorded" if first is None else text(first)
    version = "no git checkout" if first is None else f"commit {first[:10]}"
    return f"{version} with diff {rest[0]}" if rest and rest[0] else version


def _counted(texts: Sequence[str]) -> tuple[str, ...]:
    """`16 success`, the most frequent first; the text alone if there is only one."""
    counts = pd.Series(texts, dtype=str).value_counts(sort=False).sort_values(ascending=False, kind="stable")
    return tuple(counts.index) if len(counts) == 1 else tuple(f"{count} {text}" for text, count in counts.items())
