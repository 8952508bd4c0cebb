"""Studies -> an HTML page by question, and a folder beside it with figures, results and a page of each study's runs.

Reads CSVs, the sweeps' headers and, for the curves' paths, the names of the store's runs. The pages contain no dates
and no random values, so the same results and store always give the same files.
"""

import itertools
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from loralab import places
from loralab.errors import UserError
from loralab.files import write_text
from loralab.studies import committed, results
from loralab.studies.questions import Question
from loralab.studies.report_page import page, runs_page
from loralab.studies.report_runs import USUAL, commands, directories_of
from loralab.studies.report_section import Section, section
from loralab.studies.study_module import explain_failure, module_of
from loralab.studies.topics import ordered
from loralab.sweeps.study import open_study
from loralab.text import count

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["page", "report", "section"]


@dataclass(frozen=True)
class _Wanted:
    """Studies with the overrides that they were trained with, the name of their CSV in the store, and the store."""

    settings: tuple[str, ...]
    store: Path
    stem: str | None
    directories: dict[str, str]


def report(
    names: Sequence[str],
    to: Path,
    overrides: Sequence[str] = (),
    *,
    store: Path = Path("outputs"),
    stem: str | None = None,
) -> dict[str, str]:
    """Writes the page of these studies, or of `all` that have results; returns one line for each study that fails.

    The files are in a folder beside the page: report_files for report.html. Studies are in the order of their topics.
    overrides, stem: as `results.target` finds a CSV. Raises UserError for a named study that has no results, or whose
    CSV lacks a run. With `all`, studies that fail are left out.
    """
    if to.is_dir():
        raise UserError(f"--to: {to} is a directory; name a file")
    files = to.with_name(f"{to.stem}_files")
    if files.exists() and not files.is_dir():
        raise UserError(f"--to: {to} needs the folder {files} for its figures, and that is a file; name another page")
    every = list(names) == ["all"]
    if every and (overrides or stem is not None):
        raise UserError(f"report all: got {' '.join(overrides) or f'--name {stem}'}; name the study that this is of")
    names = committed.names() if every else list(dict.fromkeys(names))
    if not names:
        raise UserError("no study has results in analysis/results; `loralab study NAME` makes them")
    if stem is not None and len(names) > 1:
        raise UserError(f"--name: names one study's results; got {', '.join(names)}")
    if not every:
        for name in names:
            results.load_results(name, *overrides, path=results.target(name, overrides, store, stem=stem))
    wanted = _Wanted(tuple(overrides), store, stem, directories_of(store))
    sections, failures = committed.attempt(ordered(names), lambda name: _section(name, wanted))
    if failures and not (every and sections):
        raise UserError(": ".join(next(iter(failures.items()))))
    _write(list(sections.values()), to, files)
    return failures


def _write(sections: Sequence[Section], to: Path, files: Path) -> None:
    """The files first, so that the page never names one that is not there."""
    for one, other in itertools.combinations(sections, 2):
        if one.stem == other.stem:
            raise UserError(f"report: {one.name} and {other.name} would both be {one.stem}.html; rename one")
    for part in sections:
        write_text(files / f"{part.stem}.svg", part.picture.svg)
        write_text(files / f"{part.stem}.csv", part.csv)
        if part.runs is not None:
            back = f"../{quote(to.name)}#{quote(part.stem)}"
            write_text(files / f"{part.stem}.html", runs_page(part, back))
    write_text(to, page(sections, files.name))


def _section(name: str, wanted: _Wanted) -> Section:
    """The section of a study with results."""
    path = results.target(name, wanted.settings, wanted.store, stem=wanted.stem)
    frame = results.load_results(name, *wanted.settings, path=path)
    with open_study(name, wanted.settings) as study:
        module, header = module_of(study), study.header
        train = commands(study, frame, wanted.store) if study.spec.program is None and "hash" in frame else {}
    options = [] if path.parent.parent != wanted.store or wanted.store == USUAL else ["--store", str(wanted.store)]
    options += [] if wanted.stem is None else ["--name", wanted.stem]
    if wanted.settings:  # the header's command and cost are those of the study as in its file
        command = f"loralab study {shlex.join([name, *wanted.settings, *options])}"
        header = header | {"command": command, "cost": count(len(train) or len(frame), "run")}
    asked, unanswered = _asked(name, frame, own=bool(wanted.settings))
    return section(
        name,
        frame,
        module,
        questions=asked,
        csv=places.found(path).read_text(encoding="utf-8"),
        header=header,
        stem=path.stem if path.parent.parent == wanted.store else name,
        settings=wanted.settings,
        options=options,
        unanswered=unanswered,
        train=train,
        directories=wanted.directories,
    )


def _asked(name: str, frame: "pd.DataFrame", *, own: bool) -> tuple[list[Question], str]:
    """The study's questions, and why there are none; own: of runs with other settings, which may not answer them."""
    try:
        return committed.questions(name, frame), ""
    except Exception as error:
        if not own:
            raise
        return [], explain_failure(error)
