"""Tests of rounds: neither kills nor company change or repeat what is trained, and budgets are kept."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from loralab.errors import UserError
from loralab.tuning.space import read_space
from loralab.tuning.trial import Answer, Observed, Settings, Trial, settings_of
from tests.tuning.bowls import Store, bowl, cost, finish, lines, search, train
from tests.tuning.sessions import Trained, session


def test_asking_again_gives_the_same(tmp_path: Path) -> None:
    store: Store = {}
    some = search(tmp_path)
    while trials := some.ask(store, 3):
        assert some.ask(store, 3) == trials
        for trial in trials:
            train(store, trial)


@pytest.mark.parametrize("seed", range(4))
def test_kills_at_any_moment_change_nothing(tmp_path: Path, seed: int) -> None:
    """The search, and the runs of a round, end at random; a new search on the same journal goes on."""
    undisturbed: Store = {}
    finish(search(tmp_path / "undisturbed", seeds=(0, 1)), undisturbed, at_once=3)
    dice = random.Random(seed)
    store: Store = {}
    some = search(tmp_path / "killed", seeds=(0, 1))
    while trials := some.ask(store, 3):
        if dice.random() < 0.6:
            trials = dice.sample(trials, dice.randrange(len(trials)))
            del some
            some = search(tmp_path / "killed", seeds=(0, 1))
        for trial in trials:
            train(store, trial)
    assert store == undisturbed and list(undisturbed)[:3] != []


@pytest.mark.parametrize("pruner", ["hyperband", "none"])
def test_a_process_that_has_seen_nothing_asks_for_what_was_trained_and_goes_on(tmp_path: Path, pruner: str) -> None:
    undisturbed: Store = {}
    whole = search(tmp_path / "whole", trials=16, pruner=pruner, seeds=(0, 1))
    finish(whole, undisturbed)
    disk: Store = {}
    some = search(tmp_path / "killed", trials=16, pruner=pruner, seeds=(0, 1))
    for _ in range(6):
        for trial in some.ask(disk, 2):
            train(disk, trial)
    del some
    seen: Store = {}
    some = search(tmp_path / "killed", trials=16, pruner=pruner, seeds=(0, 1))
    while trials := some.ask(seen, 2):
        assert len(seen) >= len(disk) or {trial.settings for trial in trials} <= set(disk)  # these first
        for trial in trials:
            train(seen, trial)
    assert seen == undisturbed and some.answer(seen) == whole.answer(undisturbed)


def test_a_journal_cut_anywhere_goes_on(tmp_path: Path) -> None:
    """As by a crash of the machine: the file ends within a line, or between the lines of one transaction."""
    store: Store = {}
    finish(search(tmp_path), store)
    whole = (tmp_path / "optuna.journal").read_bytes()
    for length in [*range(0, len(whole), len(whole) // 12), len(whole) - 1]:
        (tmp_path / "optuna.journal").write_bytes(whole[:length])
        again: Store = dict(store)
        some = search(tmp_path)
        finish(some, again)
        assert some.answer(again).loss <= some.answer(store).loss
        assert sum(line["op_code"] == 4 for line in lines(tmp_path)) == 12  # new trials


def test_two_searches_on_one_journal_share_the_trials(tmp_path: Path) -> None:
    store: Store = {}
    pair = [search(tmp_path, trials=20), search(tmp_path, trials=20)]
    waiting: list[list[Trial]] = [[], []]
    dice, ended = random.Random(0), [False, False]
    trained: list[tuple[Settings, float]] = []
    while not all(ended):
        who = dice.randrange(2)
        if not waiting[who]:
            waiting[who] = pair[who].ask(store, 2)
            ended[who] = not waiting[who]
            continue
        trial = waiting[who].pop()
        if not (trial.settings in store and store[trial.settings].reached >= trial.until - 1e-9):  # the runs' lock
            train(store, trial)
            trained.append((trial.settings, trial.until))
    assert len(trained) == len(set(trained)) and len(store) == 20
    assert pair[0].answer(store) == pair[1].answer(store)


def test_two_searches_ask_for_different_trials(tmp_path: Path) -> None:
    one, other = search(tmp_path), search(tmp_path)
    first, second = one.ask({}, 2), other.ask({}, 2)
    assert not set(first) & set(second)
    del other
    assert one.ask({}, 2) == first
    store: Store = {}
    for trial in first:
        train(store, trial)
    assert one.ask(store, 2) == second  # of the search that is gone


def test_the_last_trials_of_another_search_are_waited_for(tmp_path: Path) -> None:
    one, other = search(tmp_path, trials=2, pruner="none"), search(tmp_path, trials=2, pruner="none")
    first = one.ask({}, 2)
    assert other.ask({}, 1) == first[:1]
    store: Store = {}
    for trial in first:
        train(store, trial)
    assert one.ask(store, 2) == other.ask(store, 2) == []


def test_trials_are_counted_with_those_of_the_store(tmp_path: Path) -> None:
    store: Store = {}
    for rate in (1e-3, 2e-3, 4e-3):
        train(store, Trial(settings_of({"optim.lr": rate, "lora.ratio": 4.0, "seed": 0})))
    others = settings_of({"optim.lr": 1.0, "lora.ratio": 4.0, "seed": 0}), settings_of({"optim.lr": 1e-3, "seed": 0})
    for settings in others:
        store[settings] = Observed(settings, "success", ((1.0, 0.0),))
    some = search(tmp_path, trials=5)
    asked = {trial.settings for trials in finish(some, store) for trial in trials}
    assert len(asked) == 2 and not asked & set(others)
    assert some.answer(store).loss < 1  # not that of a run outside the space
    trials = [line for line in lines(tmp_path) if line["op_code"] == 4]
    assert sum("store" in line["user_attrs"] for line in trials) == 3


@pytest.mark.parametrize("budget", [1, 2, 3.5, 6])
@pytest.mark.parametrize("at_once", [1, 4])
@pytest.mark.parametrize("pruner", ["hyperband", "none"])
def test_a_budget_is_kept_and_yields_an_answer(tmp_path: Path, budget: float, at_once: int, pruner: str) -> None:
    store: Store = {}
    some = search(tmp_path, trials=None, budget=budget, pruner=pruner, space=["optim.lr=log(1e-3,1e-2)"], seeds=(0, 1))
    finish(some, store, at_once)
    assert budget - 1 < cost(store) <= budget + 1e-9
    assert some.answer(store).settings[0][0] == "optim.lr"


def test_a_larger_budget_goes_on(tmp_path: Path) -> None:
    store: Store = {}
    finish(search(tmp_path, trials=None, budget=2), store)
    before = dict(store)
    finish(search(tmp_path, trials=None, budget=4), store)
    assert all(store[settings].reached >= observed.reached for settings, observed in before.items())
    assert 2 < cost(store) <= 4 + 1e-9


def test_runs_of_the_store_cost_nothing(tmp_path: Path) -> None:
    store: Store = {}
    for i in range(1, 9):
        train(store, Trial(settings_of({"optim.lr": i * 1e-3, "lora.ratio": 4.0, "seed": 0})))
    before = cost(store)
    finish(search(tmp_path, trials=None, budget=3), store)
    assert before + 1 < cost(store) <= before + 3 + 1e-9


def test_failed_runs_count_and_are_not_asked_for_again(tmp_path: Path) -> None:
    for options, most in (({"trials": 4}, 4), ({"trials": None, "budget": 2.0}, 6)):
        store: Store = {}
        some = search(tmp_path / str(most), **options)
        while trials := some.ask(store, 1):
            for trial in trials:
                store[trial.settings] = Observed(trial.settings, "failed", ())
        assert len(store) == most
        with pytest.raises(UserError, match=rf"none of {most} runs reached its end"):
            some.answer(store)
        del some
        assert search(tmp_path / str(most), **options).ask({}, 1) == []


def test_a_pause_between_validations_counts_as_reached(tmp_path: Path) -> None:
    """Validated at 25, 50, 75 and 100%: a run paused at 20% has no loss yet, and goes on to the next rung."""
    store: Store = {}
    some = search(tmp_path, every=0.25, trials=4, pruner="halving")
    while trials := some.ask(store, 1):
        for trial in trials:
            quarters = int(4 * trial.until)
            curve = tuple((i / 4, bowl(trial.settings)) for i in range(1, quarters + 1))
            assert trial.settings not in store or store[trial.settings].curve != curve or quarters == 0
            store[trial.settings] = Observed(trial.settings, "success" if quarters == 4 else "paused", curve)
    assert some.answer(store).loss < 2 and "success" in {observed.status for observed in store.values()}


@pytest.mark.slow
def test_a_session_that_is_cut_goes_on_and_trains_nothing_twice(tmp_path: Path) -> None:
    """Real runs: killed after each launch, the session trains as many steps as an undisturbed one, to one answer."""

    class Cut(Trained):
        def __call__(self, jobs: Sequence[tuple[str, ...]], first: int) -> None:
            super().__call__(jobs, first)
            if not set(self.launches[-1]) <= before:
                before.update(self.launches[-1])
                raise KeyboardInterrupt

    space = ["optim.lr=log(1e-3,3e-2)", "lora.rank=[4,8]"]

    def searched(store: Path, launch: Trained) -> Answer:
        one = session(store, keys=[axis.key for axis in read_space(space)])
        some = search(store, space=space, trials=3, pruner="halving", every=one.every)
        return one.search(some, launch, at_once=1, ended=lambda *_: None)

    def steps(store: Path) -> list[int]:
        records = [json.loads(path.read_text()) for path in sorted((store / "runs").glob("*/record.json"))]
        return [record["timing"]["steps_executed"] for record in records]

    undisturbed = searched(tmp_path / "whole", Trained())
    before: set[tuple[str, ...]] = set()
    cuts = 0
    while True:
        try:
            answer = searched(tmp_path / "cut", Cut())
            break
        except KeyboardInterrupt:
            cuts += 1
    assert answer == undisturbed and cuts >= 3
    assert steps(tmp_path / "cut") == steps(tmp_path / "whole")
