"""An evaluation in lines for a terminal, as JSON, and as a figure."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from loralab.inspect import classification
from loralab.inspect.classification import Classified, classified
from loralab.inspect.evaluation import Evaluated
from loralab.text import align, count, figure, finite, shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["as_json", "drawing", "lines", "measures"]

TEXT = 80  # characters of a text in the table of the worst rows
_LABEL = 24  # of a label or an answer there
_NAMED = 5  # labels that training never saw


def measures(found: Evaluated) -> Classified | dict[str, float | None]:
    """Of classes, all of `Classified`; of numbers and answers, the task's scores and others: a value by its name."""
    if found.outputs.labels is not None:
        return classified(found.outputs.labels, found.truth, found.guesses)
    if found.outputs.kind == "generation":
        return found.scores
    errors = found.guesses - found.truth
    spread = float(np.square(found.truth - found.truth.mean()).sum())
    return found.scores | {
        "mae": float(np.abs(errors).mean()),
        "bias": float(errors.mean()),  # predictions are too high where it is above 0
        "r2": 1 - float(np.square(errors).sum()) / spread if spread else None,
    }


def lines(found: Evaluated, measured: Classified | dict[str, float | None], *, worst: int) -> list[str]:
    """The whole report."""
    title = f"{found.run} at step {found.step}, {found.what}: {count(len(found), 'row')}"
    if isinstance(measured, Classified):
        body = classification.lines(measured)
    else:
        body = ["  ".join(f"{name} {figure(value)}" for name, value in measured.items())]
    return [title, *_left_out(found), "", *body, *_worst(found, worst)]


def _left_out(found: Evaluated) -> list[str]:
    """A note about labels that training never saw."""
    if not found.left_out:
        return []
    some = found.left_out.most_common(_NAMED)
    named = ", ".join(f"{shown(name, longest=60)} ({rows:,})" for name, rows in some)
    named += f" and {len(found.left_out) - _NAMED} more" if len(found.left_out) > _NAMED else ""
    assert found.wrong is not None, "classes are right or wrong"
    total = found.left_out.total()
    accuracy = float((~found.wrong).sum() / (len(found) + total))
    return [
        f"left out: {count(total, 'row')} with labels that training never saw: {named}; "
        f"counted as wrong, they make the accuracy {accuracy:.4f}"
    ]


def _worst(found: Evaluated, number: int) -> list[str]:
    """A table of the rows with the largest losses."""
    rows = found.worst(number)
    if not rows:
        return []
    header = ("row", "label", "predicted", "loss", "text")
    table = [
        (
            found.where[row].removeprefix("row "),
            shown(_label(found, row), longest=_LABEL),
            shown(_prediction(found, row), longest=_LABEL),
            f"{found.losses[row]:.3g}",
            "" if found.texts is None else shown(found.texts[row], longest=TEXT),
        )
        for row in rows
    ]
    gone = [] if found.gone is None else [f"(no texts: {found.gone})"]
    what = "wrong answers" if found.outputs.kind == "generation" and found.wrong is not None else "rows"
    return ["", f"{what} with the largest losses:", *align([header, *table], text=5), *gone]


def _label(found: Evaluated, row: int) -> str:
    return _named(found, found.truth[row])


def _prediction(found: Evaluated, row: int) -> str:
    guess = found.guesses[row]
    return _named(found, guess if found.outputs.labels is None else guess.argmax())


def _named(found: Evaluated, value: Any) -> str:
    """A class by its name; a number in four digits; an answer."""
    labels = found.outputs.labels
    if labels is not None:
        return labels[int(value)]
    return str(value) if found.outputs.kind == "generation" else f"{value:.4g}"


def as_json(found: Evaluated, measured: Classified | dict[str, float | None], *, worst: int) -> dict[str, Any]:
    """All of it; what does not exist is null."""
    values: dict[str, Any] = {"scores": measured}
    if isinstance(measured, Classified):
        values = {
            **vars(measured),
            "positive": measured.positive,
            "classes": [vars(each) for each in measured.classes],
            "confusion": measured.confusion.tolist(),
            "bins": [vars(each) for each in measured.bins],
        }
    return {
        "run": found.run, "what": found.what, "step": found.step, "rows": len(found), "left_out": dict(found.left_out),
        **values,
        "worst": [
            {"row": found.where[row], "label": _label(found, row), "predicted": _prediction(found, row),
             "loss": finite(float(found.losses[row])), "text": None if found.texts is None else found.texts[row]}
            for row in found.worst(worst)
        ],
    }  # fmt: skip


def drawing(found: Evaluated, measured: Classified | dict[str, float | None]) -> "Callable[[], Figure] | None":
    """What draws the figure; None for answers in text, which have none."""
    from loralab.inspect.evaluation_figure import drawn_classes, drawn_numbers

    title = f"{found.run}, {found.what}, {count(len(found), 'row')}".replace("$", r"\$")
    if isinstance(measured, Classified):
        return lambda: drawn_classes(title, measured)
    return None if found.outputs.kind == "generation" else lambda: drawn_numbers(title, found.truth, found.guesses)
