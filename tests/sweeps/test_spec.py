"""A study's file: every part is optional, and a wrong one is named with its place."""

from typing import Any

import pytest

from loralab.errors import UserError
from loralab.sweeps.spec import Axis, Confirm, Spec

WHERE = "hydra.sweeper"
GRID = {"params": {"task": "a,b", "seed": [0, 1]}, "arms": [{"lora.ratio": 1}, {"lora.ratio": 16}]}
FRESH = {"by": ["task"], "select": "validation/loss", "params": {"seed": [9]}}


def test_an_empty_study_is_a_plain_multirun() -> None:
    empty = Spec(study={}, params=(), arms=(), confirm=None, smoke=())
    assert Spec.from_mapping({}) == empty
    assert Spec.from_mapping(dict.fromkeys(("study", "params", "arms", "confirm", "smoke"))) == empty


def test_every_part_of_a_study_is_read() -> None:
    spec = Spec.from_mapping(
        {
            "study": {"claim": "it holds", "metric": "test/accuracy"},
            **GRID,
            "confirm": FRESH,
            "smoke": {"model": "tiny", "lora.rank, lora.alpha": [[1, 1], [2, 4]]},
        }
    )
    assert spec.study == {"claim": "it holds", "metric": "test/accuracy"}
    assert spec.params == (Axis(("task",), (("a",), ("b",))), Axis(("seed",), ((0,), (1,))))
    assert spec.arms == ((Axis(("lora.ratio",), ((1,),)),), (Axis(("lora.ratio",), ((16,),)),))
    assert spec.confirm == Confirm(("task",), "validation/loss", (Axis(("seed",), ((9,),)),))
    assert spec.smoke == (Axis(("model",), (("tiny",),)), Axis(("lora.rank", "lora.alpha"), ((1, 1), (2, 4))))


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"params": [1]}, "params: got [1]; it is a mapping"),
    ({"params": "seed=1"}, "params: got 'seed=1'; it is a mapping"),
    ({"params": {"lora": {"rank": [1]}}}, "params.lora: got a mapping; write dotted keys (lora.KEY: "),
    ({"params": {"seed": []}}, "params.seed: got [], which has no values"),
    ({"params": {"seed": "interval(0,1)"}}, "params.seed: got interval(0,1), which lists no values"),
    ({"params": {"a b": 1}}, "params.a b: 'a b' is no key"),
    ({"params": {"hydra.launcher": 1}}, "params.hydra.launcher: cannot be an axis"),
    ({"params": {"sweeps": "x"}}, "params.sweeps: cannot be an axis"),
    ({"params": {"~seed": 1}}, "params.~seed: cannot be an axis"),
    ({"params": {"seed": 1, "+seed": 2}}, "params.+seed: seed is there twice"),
    ({"params": {"a,a": [[1, 1]]}}, "params.a,a: a is there twice"),
    ({"params": {"a": 1, "a,b": [[1, 1]]}}, "params.a,b: a is there twice"),
    ({"params": {"a,b": [[1, 1, 1]]}}, "params.a,b: got [1, 1, 1]; it takes lists of 2 values"),
    ({"params": {"a,b": [1, 2]}}, "params.a,b: got 1; it takes lists of 2 values"),
    ({"arms": {"lora.ratio": 1}}, "arms: got {'lora.ratio': 1}; it is a list of mappings"),
    ({"arms": [{"a": 1}, 3]}, "arms[1]: got 3; it is a mapping"),
    ({"arms": [{"a": 1}, {"optim.lr": "logspace(0,1,2)"}]}, "arms[1].optim.lr: got logspace(0,1,2); both bounds"),
    ({"params": {"seed": 1}, "arms": [{"seed": 1}]}, "arms[0].seed: is in params too"),
    ({"study": {"claim": 3}}, "study.claim: got 3; it is a text"),
    ({"smoke": {"seed": {}}}, "smoke.seed: got a mapping"),
    ({"confirm": [1]}, "confirm: got [1]; it is a mapping"),
    (
        {**GRID, "confirm": {**FRESH, "selct": "x"}},
        "confirm.selct: no such key; it has by, select, params; did you mean",
    ),
    ({**GRID, "confirm": {**FRESH, "by": "task"}}, "confirm.by: got 'task'; it is a list of axes"),
    (
        {**GRID, "confirm": {**FRESH, "by": ["lora.rato"]}},
        "confirm.by: 'lora.rato' is no axis of params or arms; did you",
    ),
    ({**GRID, "confirm": {**FRESH, "by": ["seed"]}}, "confirm.by: seed is among the fresh values"),
    ({**GRID, "confirm": {**FRESH, "select": "loss"}}, "confirm.select: got 'loss'; it is a metric of a split"),
    ({**GRID, "confirm": {**FRESH, "params": None}}, "confirm.params: names no axis"),
]


@pytest.mark.parametrize(("mapping", "line"), MISTAKES, ids=[line for _, line in MISTAKES])
def test_a_wrong_part_is_named_with_its_place(mapping: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as caught:
        Spec.from_mapping(mapping)
    assert str(caught.value).startswith(f"{WHERE}.{line}")
    assert "\n" not in str(caught.value)
