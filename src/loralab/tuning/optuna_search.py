"""A search over any keys with Optuna: its sampler draws settings, its pruner stops runs early, its journal keeps both.

Nothing depends on when a process is killed. An `ask` is one transaction of the journal, which also says what was asked
for: a round that was cut short is asked for again before anything else. Results are told in the order of the trials'
numbers, and each draw has a random state of its own, from the seed and the trial's number.
"""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from loralab.config.checks import one_of, within
from loralab.config.overrides import to_override
from loralab.errors import UserError
from loralab.tuning.space import Space, holds
from loralab.tuning.trial import Answer, Seen, Settings, Trial, settings_of

if TYPE_CHECKING:
    from loralab.tuning.optuna_journal import Searcher

__all__ = ["PRUNERS", "SAMPLERS", "OptunaSearch"]

SAMPLERS = ("tpe", "gp", "random")
PRUNERS = ("halving", "hyperband", "none")


class OptunaSearch:
    """Trials of a space by Optuna, until there are `trials` or `budget` full runs are spent, whichever is first.

    path: the journal, which processes may share: each then trains trials of its own. command: the overrides that all
    runs share; with the space and the options it makes the study's name. trials: finished runs of the store count.
    seeds: the first is that of every trial; with the others the best two are trained again at the end, out of the same
    budget. every: the share of the steps between two validations. Raises UserError for an option that is not allowed,
    and where Optuna is not installed.
    """

    def __init__(
        self,
        space: Space,
        *,
        path: Path,
        command: Sequence[str],
        sampler: str = "tpe",
        pruner: str = "halving",
        trials: int | None = None,
        budget: float = math.inf,
        seeds: Sequence[int] = (0,),
        every: float = 0.1,
    ) -> None:
        one_of("--sampler", sampler, SAMPLERS)
        one_of("--pruner", pruner, PRUNERS)
        if trials is None and budget == math.inf:
            raise UserError("--trials, --budget: got neither, and a search needs an end; give one, as --trials 20")
        if trials is not None:
            within("--trials", trials, at_least=1)
        if budget != math.inf:
            within("--budget", budget, at_least=1)
        _need_optuna()
        from loralab.tuning.optuna_round import Rules

        parts = [*(axis.text for axis in space), *sorted(command), sampler, pruner, str(seeds[0])]
        name = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
        self.rules = Rules(name, space, sampler, pruner, trials, budget, tuple(seeds), every)
        self.path = path
        self._searcher: Searcher | None = None  # from the first trial on

    def ask(self, seen: Seen, at_once: int) -> list[Trial]:
        """What to train now, at most `at_once`; asked again with the same `seen`, it gives the same."""
        from loralab.tuning.optuna_journal import Searcher, Transaction, quiet
        from loralab.tuning.optuna_round import Round

        with quiet():
            while True:
                turn = Round(self.rules, journal := Transaction(self.path), seen)
                if self._searcher is None:
                    self._searcher = Searcher(self.path)
                found = turn.next(self._searcher, at_once)
                if journal.commit():
                    return found

    def remembered(self) -> list[Settings]:
        """Every trial of the journal, with each seed: what their runs came to is in the store."""
        from loralab.tuning.optuna_journal import Transaction, quiet
        from loralab.tuning.optuna_round import Round

        with quiet():
            return Round(self.rules, Transaction(self.path), {}).settings()

    def answer(self, seen: Seen) -> Answer:
        """The settings with the lowest final loss; of the best two, the lower mean over the seeds that both have."""
        runs = [observed for settings, observed in seen.items() if self._is_own(settings)]
        finals: dict[Settings, dict[int, float]] = {}
        for run in runs:
            if run.status == "success" and math.isfinite(loss := run.loss_at(1)):
                settings, seed = _without_seed(run.settings)
                finals.setdefault(settings, {})[seed] = loss
        first = self.rules.seeds[0]
        best = sorted((s for s in finals if first in finals[s]), key=lambda s: (finals[s][first], repr(s)))[:2]
        if not best:
            raise UserError(
                f"--space: none of {len(runs)} runs reached its end with a loss; `loralab runs` lists them; give more "
                "--trials or --budget, or another space"
            )
        both = set.intersection(*(set(finals[settings]) for settings in best))
        found = min(best, key=lambda settings: fmean(finals[settings][seed] for seed in both))
        loss, noise = fmean(finals[found].values()), _noise(finals)
        stopped = tuple(run.settings for run in runs if run.status in ("paused", "diverged"))
        notes = [
            f"{axis.key}={to_override(value)} is at an end of {axis.text}; widen it"
            for axis, (_, value) in zip(self.rules.space, found, strict=True)
            if axis.is_near_an_end(value)
        ]
        return Answer(found, loss, self._plateau(found, finals, noise), noise, stopped, tuple(notes))

    def _is_own(self, settings: Settings) -> bool:
        values = dict(settings)
        return values.pop("seed", None) in self.rules.seeds and holds(self.rules.space, values)

    def _plateau(
        self, best: Settings, finals: dict[Settings, dict[int, float]], noise: float | None
    ) -> tuple[float, float] | None:
        """The rates around the best whose loss is within noise of it; None unless rates alone vary."""
        if [axis.key for axis in self.rules.space] != ["optim.lr"] or noise is None:
            return None
        loss = {settings[0][1]: fmean(losses.values()) for settings, losses in finals.items()}
        rates = sorted(loss)
        low = high = rates.index(best[0][1])
        while low > 0 and loss[rates[low - 1]] <= loss[best[0][1]] + noise:
            low -= 1
        while high < len(rates) - 1 and loss[rates[high + 1]] <= loss[best[0][1]] + noise:
            high += 1
        return rates[low], rates[high]


def _without_seed(settings: Settings) -> tuple[Settings, int]:
    values = dict(settings)
    seed = values.pop("seed")
    return settings_of(values), seed


def _noise(finals: dict[Settings, dict[int, float]]) -> float | None:
    """The standard deviation of a final loss between seeds, pooled over settings with several; None without any."""
    repeated = [list(losses.values()) for losses in finals.values() if len(losses) > 1]
    if not repeated:
        return None
    squares = sum((loss - fmean(losses)) ** 2 for losses in repeated for loss in losses)
    return math.sqrt(squares / sum(len(losses) - 1 for losses in repeated))


def _need_optuna() -> None:
    try:
        import optuna  # noqa: F401
    except ModuleNotFoundError as error:
        raise UserError(f"--search optuna: Optuna is not installed ({error}); run: pip install -e '.[tune]'") from None
