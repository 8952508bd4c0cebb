"""answers.json: a few test questions with the model's answers before and after training, for people to read."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

from loralab.files import read_regular, write_json
from loralab.text import shown

__all__ = ["Sample", "answers_table", "write_after", "write_before"]

LONGEST = 160  # characters of a printed question or answer
_MARKS = {True: "right", False: "wrong", None: ""}


class Sample(TypedDict):
    """A row's question, its first reference, and an answer; correct: None for a metric of the whole split."""

    row: int
    question: str
    reference: str
    answer: str
    correct: bool | None


def write_before(path: Path, samples: Sequence[Sample]) -> None:
    """Writes the answers before training."""
    write_json(path, [_entry(sample, before=sample, after=None) for sample in samples])


def write_after(path: Path, samples: Sequence[Sample]) -> None:
    """Adds the answers after training to those before; these are null where the file is missing or damaged."""
    before = {entry["row"]: entry["before"] for entry in _read(path)}
    write_json(path, [_entry(sample, before=before.get(sample["row"]), after=sample) for sample in samples])


def answers_table(path: Path) -> list[str]:
    """The file in lines, each question with its reference and answers; none where it is missing or damaged."""
    entries = _read(path)
    lines = ["test questions, answered before and after training:"] if entries else []
    for entry in entries:
        answers = {name: entry[name] for name in ("before", "after") if entry[name] is not None}
        rows = [("reference", "", entry["reference"])]
        rows += [(name, _MARKS[each["correct"]], each["answer"] or "(nothing)") for name, each in answers.items()]
        marked = any(mark for _, mark, _ in rows)
        lines += ["", f"  {shown(entry['question'], longest=LONGEST)}"]
        for name, mark, text in rows:
            lines.append(f"    {name:<11}{f'{mark:<7}' if marked else ''}{shown(text, longest=LONGEST)}")
    return [*lines, ""] if lines else []


def _entry(sample: Sample, *, before: Any, after: Any) -> dict[str, Any]:
    asked = {name: sample[name] for name in ("row", "question", "reference")}
    return {**asked, "before": _answer(before), "after": _answer(after)}


def _answer(given: Any) -> dict[str, Any] | None:
    return None if given is None else {"answer": given["answer"], "correct": given["correct"]}


def _read(path: Path) -> list[dict[str, Any]]:
    """The file's entries; none where it is missing or is not one that `write_before` or `write_after` wrote."""
    try:
        found = json.loads(read_regular(path))
        return [_entry(each, before=each["before"], after=each["after"]) for each in found if _is_text(each)]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _is_text(entry: Any) -> bool:
    answers = [entry[name] for name in ("before", "after") if entry[name] is not None]
    texts = [entry["question"], entry["reference"], *(each["answer"] for each in answers)]
    return all(isinstance(text, str) for text in texts) and all(
        each["correct"] in (True, False, None) for each in answers
    )
