"""The HTML of a report: one page of all sections, and for each study of runs a page of its runs.

Both are pure functions of plain data. A page's policy makes the browser refuse whatever is not the page or its files.
"""

import base64
import hashlib
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from loralab.studies.questions import Question, value_text
from loralab.studies.report_section import Section
from loralab.studies.verdicts import CONTRADICTED, EQUIVALENT, HELD, UNKNOWN

__all__ = ["page", "runs_page"]

FOLDER = Path(__file__).parent / "report_templates"
BADGES = {HELD: "held", CONTRADICTED: "fell", EQUIVALENT: "even", UNKNOWN: "open"}  # verdict -> CSS class


def page(sections: Sequence[Section], folder: str = "report_files") -> str:
    """The HTML of the sections, in their order, the first before the list of all questions; all texts are escaped.

    folder: the name of the folder beside the page that has its files.
    """
    first, *others = sections
    topics = [(topic, list(own)) for topic, own in itertools.groupby(others, lambda each: each.topic)]
    listed = [(topic, list(own)) for topic, own in itertools.groupby(sections, lambda each: each.topic)]
    asked = [question for part in sections for question in part.questions]
    numbers = {part.stem: number for number, part in enumerate(sections, start=1)}
    values = {"first": first, "topics": topics, "listed": listed, "asked": asked, "numbers": numbers, "folder": folder}
    return _rendered("page.html.jinja", "search.js", **values)


def runs_page(part: Section, back: str) -> str:
    """The HTML of a study's runs; back: the report's address as seen from it."""
    return _rendered("runs.html.jinja", "runs.js", study=part, back=back)


def _rendered(template: str, script: str, **values: object) -> str:
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"tally": _tally, "value": value_text, "unbroken": _unbroken, "url": quote}
    code = (FOLDER / script).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    style = Markup((FOLDER / "style.css").read_text(encoding="utf-8"))  # a file of the package
    found = environment.get_template(template)
    return found.render(badges=BADGES, style=style, script=Markup(code), digest=digest, **values)


def _unbroken(text: str) -> str:
    """The text with non-breaking spaces inside intervals and in `n = 5`."""
    return re.sub(r"\[[^\]]*\]|n = \d+", lambda found: found[0].replace(" ", "\xa0"), text)


def _tally(questions: Sequence[Question]) -> str:
    """`2 held · 1 equivalent`."""
    found = [verdict for question in questions for verdict in question.verdicts]
    counts = {verdict: found.count(verdict) for verdict in BADGES}
    return " · ".join(f"{count} {verdict}" for verdict, count in counts.items() if count) or "no claim of a paper"
