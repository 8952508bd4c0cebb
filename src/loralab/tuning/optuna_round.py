"""One transaction of an Optuna study: what ended is told, what is promising goes on, and new trials are drawn.

A trial is trained up to the first rung and paused; its loss there is reported, and it is pruned or goes on to the next
rung, and then to its end. Trials that were asked for together are a round, which the journal keeps.
"""

import math
from dataclasses import dataclass

from optuna.pruners import BasePruner, HyperbandPruner, NopPruner, SuccessiveHalvingPruner
from optuna.trial import FrozenTrial, TrialState

from loralab.tuning.optuna_draw import DIVERGED, drawn, new_trial, params_of, value_of
from loralab.tuning.optuna_journal import Searcher, Transaction
from loralab.tuning.space import Space, holds
from loralab.tuning.trial import Observed, Seen, Settings, Trial, settings_of

__all__ = ["Asked", "Round", "Rules"]

# Percent of the steps: rungs at 20 and 60. Regret (median/90th percentile, nats), TREC's two tables of lr_grid,
# TPE, five full runs, 60 draws: .016/.052, .018/.055; rungs from 10%: .022/.069, .034/.087; from 30%: .014/.052,
# .028/.070; Hyperband: .021/.059, .025/.069, and like halving at ten runs; no pruning: .023/.052, .031/.078.
FIRST_RUNG, FACTOR = 20, 3
END = 100
CANDIDATES = 2  # settings that are trained again with further seeds
_STORE = "store"  # user attribute of a trial that was not asked for: the store had its run
_EPSILON = 1e-6

Asked = dict[int, int]
"""Trial number -> percent of the steps up to which it is to be trained."""


@dataclass(frozen=True)
class Rules:
    """The options of a search; see OptunaSearch."""

    name: str
    space: Space
    sampler: str
    pruner: str
    trials: int | None
    budget: float
    seeds: tuple[int, ...]
    every: float

    @property
    def rungs(self) -> tuple[int, ...]:
        return () if self.pruner == "none" else (FIRST_RUNG, FIRST_RUNG * FACTOR)

    @property
    def first(self) -> int:
        """Where a new trial pauses."""
        return (*self.rungs, END)[0]

    @property
    def reserve(self) -> float:
        """Full runs of the budget that are kept for further seeds: at most half of it, and at least one is searched."""
        return max(0.0, min(CANDIDATES * (len(self.seeds) - 1), self.budget // 2))

    def has_arrived(self, observed: Observed | None, until: int) -> bool:
        """Whether a run has nothing more to tell before `until`: it ended, or its next validation comes later."""
        if observed is None:
            return False
        return observed.status != "paused" or observed.reached > until / END - self.every + _EPSILON


class Round:
    """The study as this process sees it, and what it changes."""

    def __init__(self, rules: Rules, journal: Transaction, seen: Seen) -> None:
        self.rules, self.journal, self.seen = rules, journal, seen
        self.study = journal.study(rules.name)

    def next(self, searcher: Searcher, at_once: int) -> list[Trial]:
        """What to train now: what `seen` lacks of this study, or a new round; then the best with further seeds.

        `seen` lacks the rest of a round that was cut short, and in a new process all that was trained before: it is
        asked for again, and its runs are found. Where all that is left is another process's, that: a locked run is
        waited for, not trained twice.
        """
        mine, others = self._asked(searcher)
        running = {trial.number for trial in self._ours if trial.state == TrialState.RUNNING}
        busy = self._left({number: until for number, until in others.items() if number in running})
        if left := self._left(self._trained(mine, busy)):
            return self._trials(left)[:at_once]
        self._add_finished()
        while True:
            self._tell(busy)
            chosen = self._chosen(busy, at_once)
            left = self._left(chosen)
            if left or not chosen:  # else another command has trained all of them as far
                break
        if left:
            self.study.set_user_attr(f"round:{searcher.number}", list(left.items()))
        return self._trials(left) or self._trials(busy)[:at_once] or self._repeats()[:at_once]

    def settings(self) -> list[Settings]:
        """Those of every trial, with each seed."""
        values = [dict(self._settings(trial)) for trial in self._ours]
        return [settings_of({**each, "seed": seed}) for each in values for seed in self.rules.seeds]

    @property
    def _ours(self) -> list[FrozenTrial]:
        """The study's trials by number, without those that another program added with other keys."""
        keys = {axis.key for axis in self.rules.space}
        return [trial for trial in self.study.get_trials(deepcopy=False) if trial.params.keys() == keys]

    def _trial(self, number: int) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[number]

    def _settings(self, trial: FrozenTrial) -> Settings:
        values = {axis.key: value_of(axis, trial.params[axis.key]) for axis in self.rules.space}
        return settings_of({**values, "seed": self.rules.seeds[0]})

    def _observed(self, trial: FrozenTrial) -> Observed | None:
        return self.seen.get(self._settings(trial))

    def _asked(self, searcher: Searcher) -> tuple[Asked, Asked]:
        """What this process asked for, and processes that were killed; and what other live ones asked for."""
        mine: Asked = {}
        others: Asked = {}
        for name, pairs in sorted(self.study.user_attrs.items()):
            kind, _, number = name.partition(":")
            if kind == "round":
                alive = int(number) != searcher.number and searcher.is_alive(int(number))
                (others if alive else mine).update(dict(pairs))
        return mine, others

    def _trained(self, mine: Asked, busy: Asked) -> Asked:
        """How far each trial was trained or asked for, but for those of other processes and those that failed."""
        found: Asked = {}
        for trial in self._ours:
            if trial.number not in busy and trial.state != TrialState.FAIL:
                is_over = trial.state == TrialState.COMPLETE or DIVERGED in trial.user_attrs
                until = END if is_over else max(trial.last_step or 0, mine.get(trial.number, 0))
                found |= {trial.number: until} if until else {}
        return found

    def _left(self, asked: Asked) -> Asked:
        """The part of what was asked for that has not been trained."""
        return {
            trial.number: asked[trial.number]
            for trial in self._ours
            if trial.number in asked and not self.rules.has_arrived(self._observed(trial), asked[trial.number])
        }

    def _trials(self, asked: Asked) -> list[Trial]:
        ours = {trial.number: trial for trial in self._ours}
        return [Trial(self._settings(ours[number]), until / END) for number, until in sorted(asked.items())]

    def _add_finished(self) -> None:
        """Adds runs of the space that the store has and no trial stands for, with the seed of the trials."""
        known = {self._settings(trial) for trial in self._ours}
        for settings, observed in sorted(self.seen.items(), key=lambda item: repr(item[0])):
            values = dict(settings)
            is_ours = values.pop("seed", None) == self.rules.seeds[0] and holds(self.rules.space, values)
            if is_ours and settings not in known and observed.status in ("success", "diverged"):
                self.study.add_trial(new_trial(self.rules.space, params_of(self.rules.space, values), **{_STORE: True}))

    def _tell(self, busy: Asked) -> None:
        """Reports and results of all runs but those of other processes, in the order of the trials' numbers."""
        pruner = _pruner(self.rules)
        for trial in self._ours:
            observed = self._observed(trial)
            if trial.state == TrialState.RUNNING and trial.number not in busy and observed is not None:
                self._judge(trial.number, observed, pruner)

    def _judge(self, number: int, observed: Observed, pruner: BasePruner) -> None:
        if observed.status == "failed":
            self.study.tell(number, state=TrialState.FAIL)
            return
        loss = observed.loss_at(1)
        if observed.status == "diverged" or (observed.status == "success" and not math.isfinite(loss)):
            self.journal.annotate(self.study, number, DIVERGED, True)
            self.study.tell(number, state=TrialState.PRUNED)
            return
        for rung in self.rules.rungs:
            reported = self._trial(number).intermediate_values
            validated = any(at <= rung / END + _EPSILON for at, _ in observed.curve)
            if rung in reported or not validated or not self.rules.has_arrived(observed, rung):
                continue
            self.journal.report(self.study, number, rung, observed.loss_at(rung / END))
            stops = pruner.prune(self.study, self._trial(number))
            if stops and observed.status == "paused":
                self.study.tell(number, state=TrialState.PRUNED)
                return
        if observed.status == "success":
            self.journal.report(self.study, number, END, loss)
            self.study.tell(number, loss)

    def _chosen(self, busy: Asked, at_once: int) -> Asked:
        """Trials that go on, then new ones, as far as the slots, the number of trials and the budget allow.

        Until a trial is complete, the budget keeps what the furthest needs to its end.
        """
        running = [trial for trial in self._ours if trial.state == TrialState.RUNNING]
        reached = {trial.number: self._reached(trial) for trial in running}
        complete = any(trial.state == TrialState.COMPLETE for trial in self._ours)
        room = self.rules.budget - self.rules.reserve - self._spent()
        room -= sum(until / END - reached[number] for number, until in busy.items())
        chosen: Asked = {}

        def afford(cost: float, until: int) -> bool:
            nonlocal room
            furthest = max([until / END, *reached.values(), *(each / END for each in (chosen | busy).values())])
            if len(chosen) == at_once or room - cost < (0 if complete else 1 - furthest) - _EPSILON:
                return False
            room -= cost
            return True

        for trial in running:
            until = self._until(trial)
            if trial.number not in busy and afford(until / END - reached[trial.number], until):
                chosen[trial.number] = until
        first, most = self.rules.first, self.rules.trials
        while (most is None or len(self._ours) < most) and afford(first / END, first):
            params = drawn(self.rules.space, self._ours, sampler=self.rules.sampler, seed=self.rules.seeds[0])
            if params is None:
                break
            number = len(self.study.get_trials(deepcopy=False))
            self.study.add_trial(new_trial(self.rules.space, params))
            chosen[number] = first
        return chosen

    def _until(self, trial: FrozenTrial) -> int:
        """The next rung of a running trial, or its end."""
        observed = self._observed(trial)
        left = (r for r in self.rules.rungs if r not in trial.intermediate_values)
        return next((rung for rung in left if not self.rules.has_arrived(observed, rung)), END)

    def _reached(self, trial: FrozenTrial) -> float:
        observed = self._observed(trial)
        return 0.0 if observed is None else observed.reached

    def _spent(self) -> float:
        """Full runs; a run that failed or diverged counts at least as one that paused at the first rung."""
        total = 0.0
        for trial in self._ours:
            observed = self._observed(trial)
            if trial.state == TrialState.FAIL:
                total += FIRST_RUNG / END
            elif observed is not None and _STORE not in trial.user_attrs:
                least = {"success": 1.0, "paused": 0.0}.get(observed.status, FIRST_RUNG / END)
                total += max(least, observed.reached)
        return total

    def _repeats(self) -> list[Trial]:
        """The best two with the seeds after the first, as far as the budget goes, unless they are trained already."""
        complete = [trial for trial in self._ours if trial.state == TrialState.COMPLETE]
        best = sorted(complete, key=lambda trial: (trial.value, trial.number))[:CANDIDATES]
        values = [dict(self._settings(trial)) for trial in best]
        wanted = [settings_of({**each, "seed": seed}) for seed in self.rules.seeds[1:] for each in values]
        if math.isfinite(self.rules.budget):
            wanted = wanted[: max(0, int(self.rules.budget - self._spent() + _EPSILON))]
        return [Trial(each) for each in wanted if not self.rules.has_arrived(self.seen.get(each), END)]


def _pruner(rules: Rules) -> BasePruner:
    if rules.pruner == "hyperband":
        return HyperbandPruner(min_resource=FIRST_RUNG, max_resource=END, reduction_factor=FACTOR)
    if rules.pruner == "halving":
        return SuccessiveHalvingPruner(min_resource=FIRST_RUNG, reduction_factor=FACTOR)
    return NopPruner()
