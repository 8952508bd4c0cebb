"""Operations on all studies whose results are committed; failures are isolated."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeVar

from loralab.studies import study_module
from loralab.studies.claims import Claim, Judged, judge
from loralab.studies.results import load_results
from loralab.studies.study_module import explain_failure, load_module
from loralab.sweeps.study import studies

__all__ = ["attempt", "judge_committed", "names"]

Result = TypeVar("Result")


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


def judge_committed() -> tuple[list[Judged], dict[str, str]]:
    """The claims of the committed studies, judged together, and one line for each study whose claims fail."""
    found, failures = attempt(names(), _claims)
    return judge([claim for claims in found.values() for claim in claims]), failures


def _claims(name: str) -> list[Claim]:
    made = load_module(name).claims(load_results(name))
    return [replace(claim, study=name) for claim in made]  # several studies may share an analysis
