"""The next settings of an Optuna study: a function of its trials, the seed and the number of the new trial alone."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from loralab.config.overrides import to_override
from loralab.tuning.space import Axis, Space

__all__ = ["DIVERGED", "Params", "drawn", "new_trial", "params_of", "value_of"]

Params = dict[str, float | int | str]
"""What Optuna keeps of settings: numbers, and a choice as the text of an override (a list is none of its types)."""

DIVERGED = "diverged"
"""The user attribute of a trial whose run diverged."""
# Trials at random before a model is fitted; Optuna's default of 10 is most of a small budget. Median regrets on the two
# tables of TREC in lr_grid (TPE, halving, five full runs): .016 and .018 nats with 4, .017 and .022 with 10.
STARTUP = 4
TRIES = 100  # draws for settings that are new, before a space counts as used up


def params_of(space: Space, settings: Mapping[str, Any]) -> Params:
    """Settings, without the seed, as Optuna keeps them."""
    texts = {axis.key for axis in space if axis.form == "choice"}
    return {key: to_override(value) if key in texts else value for key, value in settings.items()}


def value_of(axis: Axis, kept: float | int | str) -> Any:
    """The setting that a parameter stands for."""
    return {to_override(each): each for each in axis.choices}[str(kept)] if axis.form == "choice" else kept


def new_trial(space: Space, params: Params, **attributes: Any) -> FrozenTrial:
    """A trial to be run; attributes: for people and for `drawn`."""
    return create_trial(
        state=TrialState.RUNNING,
        params=dict(params),
        distributions={axis.key: _distribution(axis) for axis in space},
        user_attrs=dict(attributes),
    )


def drawn(space: Space, trials: Sequence[FrozenTrial], *, sampler: str, seed: int) -> Params | None:
    """Settings that no trial has, by the sampler; by chance where it repeats itself; None where the space is used up.

    Draws from a copy of the study in memory, so that a parameter is rounded before it is kept, and so that the pruner's
    brackets do not divide the little that is known.
    """
    number = len(trials)
    known = [dict(trial.params) for trial in trials]
    copy = optuna.create_study(sampler=_sampler(sampler, _seed(seed, number, 0)))
    copy.add_trials(_finished(trials) if sampler == "gp" else trials)
    distributions = {axis.key: _distribution(axis) for axis in space}
    for attempt in range(1, TRIES):
        params = copy.ask(distributions).params
        rounded = {axis.key: _rounded(axis, params[axis.key]) for axis in space}
        if rounded not in known:
            return rounded
        copy.sampler = RandomSampler(seed=_seed(seed, number, attempt))
    return None


def _finished(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """For the Gaussian process, which learns from completed trials only: a stopped one has its last loss.

    A diverged one has the largest loss of all, since no kernel fits an infinity.
    """
    running = [trial for trial in trials if not trial.state.is_finished()]
    ended = [(trial, _loss(trial)) for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    finite = [loss for _, loss in ended if math.isfinite(loss)]
    if not finite:
        return running
    worst = max(finite)
    completed = [
        create_trial(params=trial.params, distributions=trial.distributions, value=min(loss, worst))
        for trial, loss in ended
    ]
    return [*completed, *running]


def _loss(trial: FrozenTrial) -> float:
    if trial.state == TrialState.COMPLETE and trial.value is not None:
        return trial.value
    if DIVERGED in trial.user_attrs or trial.last_step is None:
        return math.inf
    return trial.intermediate_values[trial.last_step]


def _sampler(name: str, seed: int) -> BaseSampler:
    if name == "random":
        return RandomSampler(seed=seed)
    if name == "gp":
        return GPSampler(seed=seed, n_startup_trials=STARTUP)
    # the defaults of Optuna 5, also for 4.6; the trials of one round are drawn apart from one another
    return TPESampler(seed=seed, n_startup_trials=STARTUP, multivariate=True, constant_liar=True)


def _distribution(axis: Axis) -> BaseDistribution:
    if axis.form == "choice":
        return CategoricalDistribution([to_override(choice) for choice in axis.choices])
    if axis.whole:
        return IntDistribution(int(axis.low), int(axis.high), log=axis.form == "log")
    return FloatDistribution(axis.low, axis.high, log=axis.form == "log")


def _rounded(axis: Axis, param: float | int | str) -> float | int | str:
    return param if isinstance(param, str) else axis.rounded(param)


def _seed(seed: int, number: int, attempt: int) -> int:
    """32 bits that differ between trials, unlike seed + number, which another seed shares."""
    return int.from_bytes(hashlib.sha256(f"{seed} {number} {attempt}".encode()).digest()[:4])
