"""Conditions and orders of a list of runs."""

from pathlib import Path
from typing import Any

import pytest

from loralab.cli.run_filters import NoneLeft, chosen, full_key, ordered
from loralab.errors import UserError
from loralab.runs.rows import Row
from loralab.store.run_directory import RunDirectory, Standing


def row(number: int, *, accuracy: float | None = None, tags: tuple[str, ...] = (), **settings: Any) -> Row:
    facts = {"hash": str(number), "status": "success", "tags": [*tags], "metric": "accuracy", "seconds": 10.0 - number}
    scores = {} if accuracy is None else {"test/accuracy": accuracy, "test/loss": 1 - accuracy}
    named = {key.replace("__", "."): value for key, value in settings.items()}
    return Row(RunDirectory(Path(str(number))), Standing("success"), number, facts, named, scores)


ROWS = [
    row(0, accuracy=0.7, task="trec", lora__ratio=1.0, lora__targets=["q", "v"], train__steps=None, lora__dora=False),
    row(1, accuracy=0.9, task="trec_fine", lora__ratio=4.0, lora__targets=["all"], tags=("a", "b")),
    row(2, task="sql", lora__ratio=16.0, lora__rank_pattern={"v": 4}),
]


def hashes(rows: list[Row]) -> str:
    return "".join(each.facts["hash"] for each in rows)


@pytest.mark.parametrize(
    ("condition", "left"),
    [
        ("lora.ratio=4", "1"), ("lora.ratio==4.0", "1"), ("lora.ratio = 4e0", "1"), ("lora.ratio!=4", "02"),
        ("ratio>1", "12"), ("ratio>=16", "2"), ("ratio<4", "0"), ("ratio<=4", "01"), ("task=trec", "0"),
        ("task=trec*", "01"), ("targets=[v,q]", "0"), ("targets=q,v", "0"), ("tags=a", "1"), ("tags!=a", "02"),
        ("test/accuracy>0.8", "1"), ("status=success", "012"), ("train.steps=null", "012"), ("dora=false", "0"),
        ("rank_pattern={v:4}", "2"), ("test/accuracy!=0.9", "02"),
    ],
)  # fmt: skip
def test_a_condition_keeps_the_runs_that_meet_it(condition: str, left: str) -> None:
    assert hashes(chosen(ROWS, [condition])) == left


def test_several_conditions_are_all_met() -> None:
    assert hashes(chosen(ROWS, ["ratio>1", "task!=sql"])) == "1"
    assert chosen([], ["ratio>1"]) == []


@pytest.mark.parametrize(
    ("condition", "line"),
    [
        ("lora.ratio", "--where: got 'lora.ratio'; write KEY=VALUE, or !=, <, <=, >, >="),
        ("lora.rtio=4", "--where: lora.rtio: no such key; did you mean lora.ratio?"),
        ("lora.lambda=4", "--where: lora.lambda: no such key; "),
        ("dropout=0", "--where: dropout: several settings end so; write model.dropout, lora.dropout"),
        (
            "accuracy>0.5",
            "--where: accuracy: no run has such a score; there are test/accuracy, test/loss; did you mean ",
        ),
        ("test/f1>0.5", "--where: test/f1: no run has such a score; there are test/accuracy, test/loss"),
        ("lora.ratio>high", "--where: lora.ratio>high: > compares with a number"),
    ],
)
def test_a_condition_that_cannot_be_read_is_one_line(condition: str, line: str) -> None:
    with pytest.raises(UserError) as info:
        chosen(ROWS, [condition])
    assert str(info.value).startswith(line) and "\n" not in str(info.value)


def test_where_none_is_left_the_line_has_the_values_that_there_are() -> None:
    with pytest.raises(NoneLeft, match=r"^no run has lora.ratio=3; lora.ratio is 1, 4, 16 there$"):
        chosen(ROWS, ["lora.ratio=3"])
    with pytest.raises(NoneLeft, match=r"^no run has model.path=x; none of 3 runs has a value there$"):
        chosen(ROWS, ["model.path=x"])


def test_scores_are_sorted_from_the_best_and_a_run_without_one_is_last() -> None:
    assert hashes(ordered(ROWS, "test/accuracy")) == hashes(ordered(ROWS, "test/loss")) == "102"
    assert hashes(ordered(ROWS, "test/accuracy", reverse=True)) == "012"
    assert hashes(ordered(ROWS, "lora.ratio")) == "012" and hashes(ordered(ROWS, "seconds")) == "210"
    assert hashes(ordered(ROWS, "task")) == "201"


def test_a_key_may_be_short_where_it_is_the_only_one() -> None:
    assert full_key("ratio", ROWS, "--sort") == "lora.ratio" and full_key("model.name", ROWS, "--sort") == "model"
