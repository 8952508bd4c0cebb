"""Operations on all studies whose results are committed; failures are isolated."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeVar

from loralab import places
from loralab.errors import UserError
from loralab.studies import study_module
from loralab.studies.claims import Claim, Judged, judge
from loralab.studies.questions import Question
from loralab.studies.results import load_results
from loralab.studies.study_module import explain_failure, import_analysis, load_module
from loralab.sweeps.study import open_study, studies

__all__ = ["ask_committed", "attempt", "judge_committed", "names"]

Result = TypeVar("Result")


def names() -> list[str]:
    """The studies that have a CSV in analysis/results."""
    return [name for name in studies() if places.found(study_module.ANALYSIS / "results" / f"{name}.csv").is_file()]


def attempt(names: Iterable[str], action: Callable[[str], Result]) -> tuple[dict[str, Result], dict[str, str]]:
    """The action's result for each study, and one line for each study for which it fails."""
    found, failures = {}, {}
    for name in names:
        try:
            found[name] = action(name)
        except Exception as error:  # a failing analysis must not stop the others
            failures[name] = explain_failure(error)
    return found, failures


def judge_committed() -> tuple[list[Judged], dict[str, str]]:
    """The claims of the committed studies, judged together, and one line for each study whose claims fail."""
    found, failures = attempt(names(), _claims)
    return judge([claim for claims in found.values() for claim in claims]), failures


def ask_committed() -> tuple[list[Question], dict[str, str]]:
    """The questions of the committed studies, and one line for each study whose questions fail."""
    found, failures = attempt(names(), _questions)
    return [question for questions in found.values() for question in questions], failures


def _questions(name: str) -> list[Question]:
    """UserError for a study that asks, and whose file names no margin."""
    if not hasattr(import_analysis(name), "questions"):  # most ask none, and to compose a study takes .2 s
        return []
    asked = load_module(name).questions(load_results(name))
    with open_study(name) as study:
        given = study.header.get("margin", "none")
    try:
        margin = float(given)
    except ValueError:
        where = f"sweeps/{name}.yaml: hydra.sweeper.study.margin"
        raise UserError(f"{where}: got {given}; it is the difference that counts as none, as 0.005") from None
    return [replace(question, study=name, margin=margin) for question in asked]


def _claims(name: str) -> list[Claim]:
    made = load_module(name).claims(load_results(name))
    return [replace(claim, study=name) for claim in made]  # several studies may share an analysis
