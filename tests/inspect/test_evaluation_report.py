"""The report of an evaluation in lines, JSON and a figure says one thing, of classes, numbers and answers."""

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, r2_score

from loralab.inspect.classification import Classified
from loralab.inspect.evaluation import Evaluated
from loralab.inspect.evaluation_report import as_json, drawing, lines, measures
from loralab.runs.outputs import Outputs


def of_classes(**changes: Any) -> Evaluated:
    p = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    found = Evaluated(
        run="mine", what="test", step=7, outputs=Outputs("classification", ("no", "yes")), truth=np.array([0, 1, 1]),
        guesses=p, losses=-np.log(p[[0, 1, 2], [0, 1, 1]]), wrong=np.array([False, False, True]),
        scores={}, where=["row 4", "row 0", "row 9"], texts=["a", "b", "long " * 40],
    )  # fmt: skip
    return replace(found, **changes)


def of_numbers() -> Evaluated:
    truth, guesses = np.array([1.0, 2.0, 4.0], dtype=np.float32), np.array([1.5, 2.0, 1.0])
    return Evaluated(
        run="mine", what="test", step=7, outputs=Outputs("regression", None), truth=truth, guesses=guesses,
        losses=(guesses - truth) ** 2, wrong=None, scores={"mse": 3.08}, where=["row 0", "row 1", "row 2"],
    )  # fmt: skip


def of_answers() -> Evaluated:
    texts = np.array(["ok", "no", "so"], dtype=object)
    return replace(
        of_numbers(), outputs=Outputs("generation", None), truth=texts, guesses=texts[::-1],
        losses=np.array([0.5, 2.0, 1.0]), wrong=np.array([True, False, True]), texts=["q", "r", "s"],
    )  # fmt: skip


def test_classes_come_with_all_measures_and_the_worst_rows_first() -> None:
    found = of_classes()
    measured = measures(found)
    assert isinstance(measured, Classified)
    said = lines(found, measured, worst=2)
    assert said[0] == "mine at step 7, test: 3 rows"
    at = said.index("rows with the largest losses:")
    assert [line.split()[:4] for line in said[at + 2 :]] == [
        ["9", "yes", "no", "0.916"], ["0", "yes", "yes", "0.223"]
    ]  # fmt: skip
    assert max(map(len, said[at:])) < 120
    told = json.loads(json.dumps(as_json(found, measured, worst=1), allow_nan=False))
    assert told["positive"] == "yes" and told["confusion"] == [[1, 0], [1, 1]] and told["step"] == 7
    assert [each["row"] for each in told["worst"]] == ["row 9"] and told["classes"][1]["recall"] == 0.5
    assert "largest losses" not in "".join(lines(found, measured, worst=0))


def test_labels_that_training_never_saw_count_as_wrong_in_the_note() -> None:
    found = of_classes(left_out=Counter({"maybe": 1}))
    assert lines(found, measures(found), worst=0)[1] == (
        "left out: 1 row with labels that training never saw: maybe (1); "
        "counted as wrong, they make the accuracy 0.5000"
    )


def test_numbers_have_their_errors_and_answers_their_scores() -> None:
    found = of_numbers()
    measured = measures(found)
    assert isinstance(measured, dict)
    assert measured["mae"] == pytest.approx(mean_absolute_error(found.truth, found.guesses))
    assert measured["r2"] == pytest.approx(r2_score(found.truth, found.guesses))
    assert measured["bias"] == pytest.approx(-2.5 / 3)
    said = lines(found, measured, worst=1)
    assert "mse 3.0800" in said[2] and said[-1].split() == ["2", "4", "1", "9"]
    answers = of_answers()
    said = lines(answers, measures(answers), worst=9)
    assert said[-4] == "wrong answers with the largest losses:"
    assert [line.split() for line in said[-2:]] == [["2", "so", "ok", "1", "s"], ["0", "ok", "so", "0.5", "q"]]


def test_classes_and_numbers_are_drawn_and_answers_are_not() -> None:
    for found in (of_classes(run="a$b"), of_numbers()):
        assert drawing(found, measures(found)) is not None
    assert drawing(of_answers(), measures(of_answers())) is None
