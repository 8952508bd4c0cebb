"""Tests of the search with Optuna: it finds minima, repeats the best, and says what is wrong with an option."""

import math
import sys
from pathlib import Path
from typing import Any

import pytest

from loralab.errors import UserError
from loralab.tuning.trial import Observed, Seen, Settings, settings_of
from tests.tuning.bowls import BOWL, Store, bowl, cost, finish, search, train


@pytest.mark.parametrize(("sampler", "pruner"), [("tpe", "hyperband"), ("random", "none")])
def test_it_finds_the_minimum_of_a_bowl(tmp_path: Path, sampler: str, pruner: str) -> None:
    store: Store = {}
    some = search(tmp_path, sampler=sampler, pruner=pruner, trials=30)
    finish(some, store)
    assert len(store) == 30
    assert bowl((*some.answer(store).settings, ("seed", 0))) < 0.45


def test_halving_stops_the_worse_runs_early(tmp_path: Path) -> None:
    store: Store = {}
    some = search(tmp_path, sampler="random", pruner="halving", trials=30)
    finish(some, store)
    finished = [bowl(settings) for settings, observed in store.items() if observed.status == "success"]
    stopped = [bowl(settings) for settings, observed in store.items() if observed.status == "paused"]
    assert len(stopped) > len(finished) and cost(store) < 0.6 * 30
    assert sorted(finished)[0] < sorted(stopped)[0]
    assert set(some.answer(store).stopped) == {s for s, observed in store.items() if observed.status != "success"}


def test_the_best_two_are_trained_with_further_seeds(tmp_path: Path) -> None:
    store: Store = {}
    some = search(tmp_path, space=BOWL[:1], trials=10, seeds=(0, 1, 2), pruner="none")
    asked = finish(some, store)
    seeds = [dict(trial.settings)["seed"] for trials in asked for trial in trials]
    assert seeds == [0] * 10 + [1, 1, 2, 2]
    firsts = sorted((s for s in store if dict(s)["seed"] == 0 and store[s].status == "success"), key=bowl)[:2]
    assert {dict(s)["optim.lr"] for s in store if dict(s)["seed"] > 0} == {dict(s)["optim.lr"] for s in firsts}
    answer = some.answer(store)
    assert answer.noise == pytest.approx(0.01) and answer.loss == pytest.approx(bowl(firsts[0]) + 0.01)
    assert answer.plateau is not None and answer.plateau[0] <= dict(answer.settings)["optim.lr"] <= answer.plateau[1]


def test_a_repeat_that_turns_out_worse_changes_the_choice(tmp_path: Path) -> None:
    store: Store = {}
    first, second = ({"optim.lr": rate, "lora.ratio": 4.0} for rate in (3e-3, 3.1e-3))
    for values, losses in ((first, (0.40, 0.50)), (second, (0.41, 0.41))):
        for seed, loss in enumerate(losses):
            settings = settings_of({**values, "seed": seed})
            store[settings] = Observed(settings, "success", ((1.0, loss),))
    some = search(tmp_path, trials=2, seeds=(0, 1))
    assert finish(some, store) == []
    assert some.answer(store).settings == settings_of(second)
    assert some.answer(store).plateau is None  # not only rates vary


def test_a_small_space_ends_when_it_is_used_up(tmp_path: Path) -> None:
    store: Store = {}
    finish(search(tmp_path, space=["lora.ratio=[1,4]", "optim.lr=[1e-3,2e-3,4e-3]"], trials=50), store)
    assert len(store) == 6


def test_lists_and_options_can_be_searched(tmp_path: Path) -> None:
    def final(settings: Settings) -> float:
        values = dict(settings)
        loss: float = 1 - 0.1 * len(values["lora.targets"]) + 0.1 * (values["method"] == "dora")
        return loss

    store: Store = {}
    some = search(tmp_path, space=["lora.targets=[[q],[q,v]]", "method=[lora,dora]"], trials=9)
    while trials := some.ask(store, 2):
        for trial in trials:
            train(store, trial, final)
    assert some.answer(store).settings == (("lora.targets", ("q", "v")), ("method", "lora"))


def test_an_end_of_an_axis_is_noted(tmp_path: Path) -> None:
    store: Store = {}
    some = search(tmp_path, space=["optim.lr=log(1e-4,3e-3)"], trials=25)
    finish(some, store)
    (note,) = some.answer(store).notes
    assert note.endswith("is at an end of optim.lr=log(0.0001,0.003); widen it")


@pytest.mark.parametrize(
    "change",
    [{"space": BOWL[:1]}, {"command": ["task=imdb"]}, {"sampler": "random"}, {"pruner": "none"}, {"seeds": (7,)}],
)
def test_the_journal_of_another_search_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    search(tmp_path).ask({}, 1)
    with pytest.raises(UserError, match=r"optuna.journal: it is the journal of another search .*; move the file away"):
        search(tmp_path, **change).ask({}, 1)
    assert search(tmp_path, trials=99, budget=50).ask({}, 1) != []  # how long it lasts may change


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ({"sampler": "tep"}, r"--sampler: got 'tep'; allowed: tpe, gp, random; did you mean 'tpe'\?"),
        ({"pruner": "median"}, r"--pruner: got 'median'; allowed: halving, hyperband, none"),
        ({"trials": 0}, r"--trials: got 0; it must be a number at least 1"),
        ({"budget": 0.5}, r"--budget: got 0.5; it must be a number at least 1"),
        ({"budget": math.nan}, r"--budget: got nan"),
        ({"trials": None}, r"--trials, --budget: got neither"),
    ],
)
def test_options_have_their_ranges(tmp_path: Path, option: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line):
        search(tmp_path, **option)


def test_without_optuna_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"Optuna is not installed .*; run: pip install -e '.\[tune\]'"):
        search(tmp_path)


def test_nothing_seen_has_no_answer(tmp_path: Path) -> None:
    nothing: Seen = {}
    with pytest.raises(UserError, match=r"none of 0 runs reached its end with a loss"):
        search(tmp_path).answer(nothing)
