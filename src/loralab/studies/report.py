"""Studies -> one self-contained HTML page: claims, verdicts, figures, tables, provenance, commands.

Reads the committed CSVs and the sweeps' headers. `page` is a pure function of plain data. The data contains no dates
and no random values, so a commit always produces the same report.
"""

import base64
import hashlib
import io
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from loralab import plotting
from loralab.errors import UserError
from loralab.files import write_text
from loralab.studies import committed, study_module
from loralab.studies.questions import Question, value_text
from loralab.studies.results import load_results
from loralab.studies.study_module import StudyModule, load_module
from loralab.studies.verdicts import CONTRADICTED, EQUIVALENT, HELD, UNKNOWN
from loralab.sweeps.study import open_study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Picture", "Section", "Table", "page", "report", "section"]

BADGES = {HELD: "held", CONTRADICTED: "fell", EQUIVALENT: "even", UNKNOWN: "open"}  # verdict -> CSS class
TOOLS = ("loralab", "matplotlib", "numpy", "pandas")
NUMBER = re.compile(r"[\[<>~+-]*\s*[\d.]*\d")  # start of the text of a number or an interval
LONGEST_FRACTION = 4  # digits; columns that need more are not aligned
ABSENT = "—"


@dataclass(frozen=True)
class Picture:
    """An SVG with its width in CSS pixels."""

    svg: str
    width: int
    alt: str
    caption: str


@dataclass(frozen=True)
class Table:
    """A table of texts; numeric: for each column, whether it is right-aligned."""

    columns: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Section:
    """One study's part of the page.

    header: its claim, metric, command and cost (Study.header); csv: the text of its results; provenance: term -> lines.
    """

    name: str
    header: Mapping[str, str]
    questions: tuple[Question, ...]
    picture: Picture
    table: Table
    csv: str
    provenance: Mapping[str, tuple[str, ...]]


def page(sections: Sequence[Section]) -> str:
    """The HTML of the sections, in their order; all texts are escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"base64": _base64, "tally": _tally, "value": value_text, "unbroken": _unbroken}
    template = environment.get_template("report.html.jinja")
    every = [question for part in sections for question in part.questions]
    return template.render(sections=sections, badges=BADGES, every=every)


def report(names: Sequence[str], to: Path) -> dict[str, str]:
    """Writes the page of these studies, or of `all` that have results; returns one line for each study that fails.

    Raises UserError for a named study that has no results, or whose CSV lacks a run. With `all`, studies that fail are
    left out.
    """
    if to.is_dir():
        raise UserError(f"--to: {to} is a directory; name a file")
    every = list(names) == ["all"]
    wanted = committed.names() if every else list(dict.fromkeys(names))
    if not wanted:
        raise UserError("no study has results in analysis/results; `loralab study NAME` makes them")
    if not every:
        for name in wanted:
            load_results(name)  # report a mistake before drawing anything
    failures: dict[str, str] = {}
    if every:
        sections, failures = committed.attempt(wanted, _section)
    else:
        sections = {name: _section(name) for name in wanted}
    write_text(to, page(list(sections.values())))
    return failures


def _section(name: str) -> Section:
    """The section of a study with results."""
    csv = (study_module.ANALYSIS / "results" / f"{name}.csv").read_text(encoding="utf-8")
    with open_study(name) as study:
        header = study.header
    asked = committed.questions(name)
    return section(name, load_results(name), load_module(name), questions=asked, csv=csv, header=header)


def section(
    name: str,
    frame: pd.DataFrame,
    analysis: StudyModule,
    *,
    questions: Sequence[Question],
    csv: str,
    header: Mapping[str, str],
) -> Section:
    """The section that a study's analysis makes from its CSV, with its questions."""
    return Section(
        name=name,
        header=header,
        questions=tuple(questions),
        picture=_picture(name, frame, analysis),
        table=_table(analysis.summary(frame)),
        csv=csv,
        provenance=_provenance(frame, csv),
    )


def _picture(name: str, frame: pd.DataFrame, analysis: StudyModule) -> Picture:
    """The study's figure as SVG, without date or random ids."""
    from matplotlib import pyplot

    stream = io.StringIO()
    with plotting.style():
        figure = analysis.draw(frame)
        alt = _alt(name, figure)
        figure.savefig(stream, format="svg", metadata={"Date": None})
        pyplot.close(figure)
    svg = stream.getvalue()
    width = re.search(r'<svg [^>]*?width="([\d.]+)pt"', svg)
    assert width is not None
    return Picture(svg, round(float(width[1]) * 96 / 72), alt, analysis.caption(frame))


def _alt(name: str, figure: "Figure") -> str:
    """Alternative text for screen readers: what each panel plots against what; the table has the numbers."""
    pairs: dict[str, None] = {}
    panels = []
    for axes in figure.axes:
        x, y = _plain(axes.get_xlabel()), _plain(axes.get_ylabel())
        panels += [title] if (title := _plain(axes.get_title("left") or axes.get_title())) else []
        if x or y:
            pairs[f"{y} against {x}" if x and y else x or y] = None
    heading = _plain(figure.get_suptitle())
    parts = [f"Figure of {name}", heading, "; ".join(pairs), f"panels: {'; '.join(panels)}" if panels else ""]
    return f"{'. '.join(part for part in parts if part)}. The numbers are in the table below."


def _plain(label: str) -> str:
    """`lr_A` for matplotlib's `lr$_A$`, on one line."""
    text = re.sub(r"\\(?:mathrm|mathit|mathbf|text)\b|[${}]", "", label)
    return " ".join(text.replace(r"\lambda", "λ").split())


def _table(frame: pd.DataFrame) -> Table:
    """A frame's columns, preceded by its index if that has a name."""
    frame = frame.reset_index() if any(frame.index.names) else frame
    columns = tuple(" ".join(map(str, name)) if isinstance(name, tuple) else str(name) for name in frame.columns)
    texts = [_aligned([_text(value) for value in frame.iloc[:, at]]) for at in range(len(columns))]
    numeric = tuple(all(text == ABSENT or NUMBER.match(text) for text in column) for column in texts)
    return Table(columns, numeric, tuple(zip(*texts, strict=True)))


def _text(value: Any) -> str:
    if value is None or value != value:
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _aligned(texts: list[str]) -> list[str]:
    """Decimal fractions with the same number of digits if few are enough; else the texts unchanged."""
    plain = [re.fullmatch(r"-?\d+(?:\.(\d+))?", text) for text in texts if text != ABSENT]
    digits = max((len(match[1] or "") for match in plain if match), default=0)
    if not all(plain) or not 0 < digits <= LONGEST_FRACTION:
        return texts
    return [text if text == ABSENT else f"{float(text):.{digits}f}" for text in texts]


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _unbroken(text: str) -> str:
    """The text with non-breaking spaces inside intervals and in `n = 5`."""
    return re.sub(r"\[[^\]]*\]|n = \d+", lambda found: found[0].replace(" ", "\xa0"), text)


def _tally(questions: Sequence[Question]) -> str:
    """`2 held · 1 equivalent`."""
    found = [verdict for question in questions for verdict in question.verdicts]
    counts = {verdict: found.count(verdict) for verdict in BADGES}
    return " · ".join(f"{count} {verdict}" for verdict, count in counts.items() if count) or "no claim of a paper"


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
        return "not recorded" if first is None else _text(first)
    version = "no git checkout" if first is None else f"commit {first[:10]}"
    return f"{version} with diff {rest[0]}" if rest and rest[0] else version


def _counted(texts: Sequence[str]) -> tuple[str, ...]:
    """`16 success`, the most frequent first; the text alone if there is only one."""
    counts = pd.Series(texts, dtype=str).value_counts(sort=False).sort_values(ascending=False, kind="stable")
    return tuple(counts.index) if len(counts) == 1 else tuple(f"{count} {text}" for text, count in counts.items())
