"""The options of `loralab tune`: which go together, and which sessions are the same one."""

from typing import Any

import pytest

from loralab.errors import UserError
from loralab.tuning.options import Options

SPACE = ["optim.lr=log(1e-4,1e-2)"]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"search": "optna"}, "--search: got 'optna'; allowed: law, optuna; did you mean 'optuna'?"),
        ({"budget": 0.5}, "--budget: got 0.5; it must be a number at least 1"),
        ({"seeds": 0}, "--seeds: got 0; it must be a number at least 1"),
        ({"confirm": -1}, "--confirm: got -1; it must be a number at least 0"),
        ({"space": SPACE}, "--space: the law search varies the learning rate alone; add --search optuna"),
        ({"trials": 3}, "--trials: the law search has a budget; give --budget, or add --search optuna"),
        ({"search": "optuna"}, "--search optuna: needs --space, as --space 'optim.lr=log"),
        ({"search": "optuna", "space": SPACE, "ratio": True}, "--ratio: of the law search; with optuna write --space"),
        ({"search": "optuna", "space": SPACE, "trials": 0}, "--trials: got 0; it must be a number at least 1"),
        ({"name": "a/b"}, "--name: got 'a/b'; it names a folder"),
        ({"name": ".."}, "--name: got '..'; it names a folder"),
        ({"at_once": 0}, "hydra.sweeper.at_once: got 0; it must be a number at least 1"),
    ],
)
def test_a_mistake_is_one_line(options: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as raised:
        Options(**options)
    assert str(raised.value).startswith(line)


@pytest.mark.parametrize("change", [{"budget": 3.0}, {"seeds": 3}, {"ratio": True}])
def test_what_a_search_does_makes_another_session(change: dict[str, Any]) -> None:
    assert Options(**change).asked != Options().asked


@pytest.mark.parametrize("change", [{"confirm": 5}, {"figure": "a.png"}, {"name": "mine"}, {"budget": 5.0}])
def test_what_is_done_with_the_answer_does_not(change: dict[str, Any]) -> None:
    assert Options(**change).asked == Options().asked
