"""Tests of drawn settings: they repeat, are new, and learn from every kind of trial."""

import math

import pytest
from optuna.trial import FrozenTrial, TrialState

from loralab.tuning.optuna_draw import DIVERGED, drawn, new_trial, params_of, value_of
from loralab.tuning.optuna_journal import quiet
from loralab.tuning.space import Space, read_space

RATE = read_space(["optim.lr=log(1e-4,1e-1)"])
MIXED = read_space(["optim.lr=log(1e-4,1e-1)", "lora.rank=log(1,64)", "lora.targets=[[q],[q,v]]", "lora.ratio=[1,4]"])


def ended(rate: float, state: TrialState = TrialState.COMPLETE, value: float | None = None) -> FrozenTrial:
    """A trial with the loss of a parabola around 3e-3."""
    trial = new_trial(RATE, {"optim.lr": rate}, **({DIVERGED: True} if value == math.inf else {}))
    loss = math.log2(rate / 3e-3) ** 2 if value is None else value
    trial.state = state
    if state == TrialState.PRUNED and value is None:
        trial.intermediate_values = {20: loss}
    trial.value = loss if math.isfinite(loss) and state != TrialState.FAIL else None
    trial.datetime_complete = trial.datetime_start
    return trial


TRIALS = [
    *(ended(rate) for rate in (1e-4, 3e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.1e-2, 1.5e-2)),
    *(ended(rate, TrialState.PRUNED) for rate in (2e-2, 3e-2, 1.5e-4)),
    *(ended(rate, TrialState.PRUNED, math.inf) for rate in (5e-2, 9e-2)),
    ended(2.9e-3, TrialState.FAIL),
]


def next_rate(sampler: str, seed: int, trials: list[FrozenTrial] = TRIALS) -> float:
    with quiet():
        params = drawn(RATE, trials, sampler=sampler, seed=seed)
    assert params is not None
    return float(params["optim.lr"])


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_draw_repeats(sampler: str) -> None:
    assert next_rate(sampler, 0) == next_rate(sampler, 0) != next_rate(sampler, 1)
    assert next_rate(sampler, 0, TRIALS[:3]) != next_rate(sampler, 0, TRIALS[:4])


def test_the_gaussian_process_learns_from_stopped_and_diverged_trials() -> None:
    assert 2e-3 < next_rate("gp", 0) < 4.5e-3
    few = [*TRIALS[:3], *TRIALS[8:]]  # fewer than four completed ones, with which it would draw at random
    assert next_rate("gp", 0, few) == next_rate("gp", 0, few) != next_rate("random", 0, few)


def test_trials_that_still_run_push_others_away() -> None:
    running = [new_trial(RATE, {"optim.lr": rate}) for rate in (2.8e-3, 3e-3, 3.2e-3)]
    assert next_rate("tpe", 3, [*TRIALS, *running]) not in {2.8e-3, 3e-3, 3.2e-3}


def test_all_kinds_of_axes_are_drawn_rounded_and_typed() -> None:
    trials: list[FrozenTrial] = []
    for _ in range(20):
        params = drawn(MIXED, trials, sampler="random", seed=0)
        assert params is not None
        rate, rank = params["optim.lr"], params["lora.rank"]
        assert isinstance(rate, float) and rate == float(f"{rate:.3g}") and 1e-4 <= rate <= 1e-1
        assert isinstance(rank, int) and 1 <= rank <= 64
        trials.append(new_trial(MIXED, params))
    values = [{axis.key: value_of(axis, trial.params[axis.key]) for axis in MIXED} for trial in trials]
    assert {each["lora.targets"] for each in values} == {("q",), ("q", "v")}
    assert {each["lora.ratio"] for each in values} == {1.0, 4.0}
    assert [params_of(MIXED, each) for each in values] == [trial.params for trial in trials]


def test_no_settings_are_drawn_twice_and_a_space_is_used_up() -> None:
    space: Space = read_space(["lora.rank=int(1,3)", "lora.init=[A,B]"])
    trials: list[FrozenTrial] = []
    with quiet():
        while (params := drawn(space, trials, sampler="tpe", seed=0)) is not None:
            trial = new_trial(space, params)
            trial.state, trial.value, trial.datetime_complete = TrialState.COMPLETE, 1.0, trial.datetime_start
            trials.append(trial)
    assert len({tuple(trial.params.items()) for trial in trials}) == len(trials) == 6
