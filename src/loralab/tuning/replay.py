"""A search as plain code over finished runs: it begins anew each time and ends at the first that is missing."""

import math
from collections.abc import Sequence

from loralab.tuning.trial import Observed, Seen, Settings, Trial

__all__ = ["Replay", "Unmet"]


class Unmet(Exception):  # noqa: N818  # no error: the search goes on once the trials are trained
    """Trials that the search needs before it can go on."""

    def __init__(self, trials: list[Trial]) -> None:
        super().__init__(f"{len(trials)} trials")
        self.trials = trials


class Replay:
    """The runs that one pass through a search has asked for, with their cost in full runs.

    A run costs the share of its steps that was asked of it, also where it was in the store before: the same requests
    then follow whether the session was killed or not. A run that diverged costs what it was trained.
    """

    def __init__(self, seen: Seen, budget: float) -> None:
        self.seen, self.budget = seen, budget
        self.asked: dict[Settings, float] = {}

    def train(self, runs: Sequence[Settings], until: float) -> list[Settings]:
        """Those of `runs` that the budget allows, trained up to `until`; raises Unmet where some are not yet.

        The budget refuses a run where it would no longer bring one to the end.
        """
        allowed = []
        for run in dict.fromkeys(runs):
            before = self.asked.get(run, 0.0)
            self.asked[run] = max(until, before)
            rest = 1 - max(self.asked[one] if self._goes_on(one) else 0.0 for one in self.asked)
            if self.cost + rest <= self.budget + 1e-9:
                allowed.append(run)
            elif before:
                self.asked[run] = before
            else:
                del self.asked[run]
        missing = [Trial(run, until) for run in allowed if self._goes_on(run) and self.of(run).reached < until - 1e-9]
        if missing:
            raise Unmet(missing)
        return allowed

    @property
    def cost(self) -> float:
        """Of all that was asked, in full runs."""
        return sum(share if self._goes_on(run) else self.of(run).reached for run, share in self.asked.items())

    def of(self, run: Settings) -> Observed:
        """What was seen of a run; an empty curve where nothing was."""
        return self.seen.get(run, Observed(run, "paused", ()))

    def loss(self, run: Settings, share: float) -> float:
        """Of a run at a share of its steps; inf where it did not come there."""
        seen = self.of(run)
        return seen.loss_at(share) if seen.reached >= share - 1e-9 else math.inf

    def _goes_on(self, run: Settings) -> bool:
        return self.of(run).status not in ("diverged", "failed")
