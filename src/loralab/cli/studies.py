"""`loralab` commands for studies: new, study, status, collect, figure, claims, report. Each returns an exit status."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from loralab.cli.child import exit_status
from loralab.config.literal import literal
from loralab.config.overrides import to_override
from loralab.entries import process
from loralab.errors import UserError
from loralab.files import write_text
from loralab.studies import committed, new_study, results, study_module
from loralab.studies.claims import embedded, lines, markdown
from loralab.studies.questions import Question
from loralab.studies.required_scores import refuse_other_tasks
from loralab.studies.tables import study_tables
from loralab.sweeps import status as forecast
from loralab.sweeps.collect import damaged, mixed_versions
from loralab.sweeps.study import Study, open_study
from loralab.text import printed, shown

__all__ = ["claims", "collect", "figure", "new", "report", "status", "study"]


def new(arguments: Sequence[str]) -> int:
    """Writes sweeps/NAME.yaml and analysis/NAME.py."""
    if len(arguments) != 1:
        got = " ".join(arguments) or "no name"
        raise UserError(f"study new: got {got}; it takes one name, as loralab study new mine")
    (name,) = arguments
    written = new_study.write_study(name)
    print(printed([*map(str, written), *new_study.next_steps(name)]))
    return 0


def study(name: str, overrides: Sequence[str], store: Path, *, stem: str | None = None, dry_run: bool = False) -> int:
    """Trains the missing runs or measures; collects; draws; tells the verdicts, but not of a smoke size.

    The analysis is checked before training starts. dry_run: prints the runs and the time that they take, and no more.
    """
    with open_study(name) as opened:
        trained = opened.spec.program is None
        drawn = study_module.analysis_of(opened) != study_module.NO_ANALYSIS
        if drawn:
            study_module.module_of(opened)
    with open_study(name, overrides, store=store) as opened:
        smoke = opened.smoke
        if trained and drawn:
            refuse_other_tasks(opened, study_module.module_of(opened), overrides)
        if dry_run:
            print(printed(forecast.forecast(opened) if trained else _measured(name, opened, overrides, store)))
            return 0
    if trained:
        command = [*process("train"), f"sweeps={name}", f"store={to_override(literal(str(store)))}"]
        command.append("hydra.sweeper.inside=true")
        if failed := exit_status([*command, *overrides]):
            return failed
    failed = collect(name, overrides, store, stem=stem)
    failed = failed or (figure(name, overrides, store, stem=stem) if drawn else 0)
    if drawn and not failed and not smoke:
        _print_verdicts(_own_questions(name, overrides, results.target(name, overrides, store, stem=stem)))
    return failed


def _own_questions(name: str, overrides: Sequence[str], path: Path) -> list[Question]:
    """A study's questions, answered by its own results; settings of one's own may leave too little to answer them."""

    def ask(_: str) -> list[Question]:
        return committed.questions(name, results.load_results(name, *overrides, path=path))

    if not overrides:
        return ask(name)
    found, failures = committed.attempt([name], ask)
    for line in failures.values():
        print(printed([f"no verdicts with these settings: {line}"]))
    return found.get(name, [])


def status(name: str, overrides: Sequence[str], store: Path) -> int:
    """Prints the study's progress."""
    with open_study(name, overrides, store=store) as opened:
        trained = opened.spec.program is None
        print(printed(forecast.state(opened) if trained else _measured(name, opened, overrides, store)))
    return 0


def _measured(name: str, opened: Study, overrides: Sequence[str], store: Path) -> list[str]:
    """The state of a study that trains nothing."""
    return [*forecast.heading(opened), results.state(name, overrides, store)]


def collect(
    name: str, overrides: Sequence[str], store: Path, *, stem: str | None = None, to: Path | None = None
) -> int:
    """Writes a study's CSV, to its default path (`results.target`) unless another is given."""
    with open_study(name, overrides, store=store) as opened:
        if opened.spec.program is not None:
            frame = results.measure(opened, overrides, store)
            to = to or results.target(name, overrides, store, stem=stem)
            results.save(frame, to)
            print(printed([f"{len(frame)} rows in {to}"]))
            return 0
        study_module.find_module(opened)  # its mistakes first
        runs = study_tables(opened).runs
        to = to or results.target(name, overrides, opened.store, stem=stem)
        results.save(results.reduce_study(opened), to)
    tally = ", ".join(f"{n} {status}" for status, n in runs["status"].value_counts().items())
    print(printed([f"{len(runs)} runs ({tally}) in {to}", *damaged(runs), *mixed_versions(runs)]))
    return 0


def figure(name: str, overrides: Sequence[str], store: Path, *, stem: str | None = None, to: Path | None = None) -> int:
    """Draws a study's figure, or `all`: then failures are listed and the others are drawn."""
    from loralab.studies import figures  # imports matplotlib

    def draw(each: str) -> None:
        print(printed(map(str, figures.draw(each, overrides, store=store, stem=stem, to=to))), flush=True)

    if name != "all":
        draw(name)
        return 0
    if stem is not None or to is not None:
        raise UserError(f"{'--to' if stem is None else '--name'}: names one figure; draw one study, not all")
    return _print_failures(committed.attempt(committed.names(), draw)[1])


def claims() -> int:
    """Writes analysis/claims.md and the tables of docs/findings.md, for every study whose questions can be answered."""
    questions, failures = committed.ask_committed()
    page = study_module.ANALYSIS.parent / "docs" / "findings.md"
    write_text(study_module.ANALYSIS / "claims.md", markdown(questions))
    if page.is_file():  # in a checkout
        write_text(page, embedded(page.read_text(encoding="utf-8"), questions))
    _print_verdicts(questions)
    return _print_failures(failures)


def report(words: Sequence[str], store: Path, *, stem: str | None = None, to: Path | None = None) -> int:
    """Writes the report page of the studies among the words; those with `=` are the settings of all of them."""
    from loralab.studies.report import report as write_report  # imports matplotlib

    names = [word for word in words if "=" not in word]
    given = {word.partition("=")[0]: word for word in words if "=" in word}
    if not names:
        raise UserError("report: got settings alone; name their study, as loralab report first smoke=true")
    to = to or store / "report.html"
    failures = write_report(names, to, list(given.values()), store=store, stem=stem)
    print(printed([str(to)]))
    return _print_failures(failures)


def _print_verdicts(questions: Sequence[Question]) -> None:
    for question in questions:
        print(printed(lines(question)))


def _print_failures(failures: Mapping[str, str]) -> int:
    """Prints one line to stderr for each study that failed; returns 1 if there is one, else 0."""
    for name, line in failures.items():
        print(f"error: {shown(f'{name}: {line}')}", file=sys.stderr)
    return int(bool(failures))
