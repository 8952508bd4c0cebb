"""Operations on all studies whose results are committed; failures are isolated."""

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from loralab.errors import UserError
from loralab.studies import study_module
from loralab.studies.questions import PERCENT, Question, amount
from loralab.studies.results import load_results
from loralab.studies.study_module import explain_failure, module_of
from loralab.sweeps.study import open_study, studies

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ask_committed", "attempt", "names", "questions"]

Result = TypeVar("Result")
MARGIN = re.compile(r"(\d+\.?\d*|\.\d+) ?([^,]*)")
"""`0.5 points, 1.1x, 0.25`: a margin for each unit of a study's claims."""


def names() -> list[str]:
    """The studies that have a CSV in analysis/results."""
    return [name for name in studies() if (study_module.ANALYSIS / "results" / f"{name}.csv").is_file()]


def attempt(names: Iterable[str], action: Callable[[str], Result]) -> tuple[dict[str, Result], dict[str, str]]:
    """The action's result for each study, and one line for each study for which it fails."""
    found, failures = {}, {}
    for name in names:
        try:
            found[name] = action(name)
        except Exception as error:  # a failing analysis must not stop the others
            failures[name] = explain_failure(error)
    return found, failures


def ask_committed() -> tuple[list[Question], dict[str, str]]:
    """The questions of the committed studies, and one line for each study whose questions fail."""
    found, failures = attempt(names(), questions)
    return [question for asked in found.values() for question in asked], failures


def questions(name: str, frame: "pd.DataFrame | None" = None) -> list[Question]:
    """A study's questions with their margins, from a frame or its committed results.

    UserError if its file names no margin in the unit of a question.
    """
    with open_study(name) as study:
        module, given = module_of(study), study.spec.study.get("margin", "none")
    asked = module.questions(load_results(name) if frame is None else frame)
    margins = {unit.strip(): float(value) for value, unit in MARGIN.findall(given)}
    for question in asked:
        if question.unit not in margins:
            unit = f"of unit {question.unit}" if question.unit else "without a unit"
            where, least = f"sweeps/{name}.yaml: hydra.sweeper.study.margin", amount(1.5, question.unit)
            raise UserError(f"{where}: got {given}; claims {unit} need the difference that counts as none, as {least}")
    scaled = [margins[question.unit] / PERCENT.get(question.unit, 1.0) for question in asked]
    return [replace(each, study=name, margin=margin) for each, margin in zip(asked, scaled, strict=True)]
