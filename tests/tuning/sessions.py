"""Sessions of small runs for tests: a search of three rates, and trials that are trained in this process."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from loralab.config.schema import from_hydra
from loralab.runs.run import run
from loralab.tuning.session import Session
from loralab.tuning.trial import Answer, Seen, Settings, Trial, settings_of
from tests.small_runs import SMALL, composer

STEPS = 10
COMMAND = (
    *(text for text in SMALL if not text.startswith(("train.eval_every", "train.steps"))),
    f"train.steps={STEPS}",
)
RATES = (1e-3, 4e-3, 1.6e-2)


@dataclass(frozen=True)
class ThreeRates:
    """Each rate to `probe` of the steps, then the best to its end."""

    probe: float = 0.3
    rates: Sequence[float] = RATES
    seed: int = 0

    def at(self, rate: float) -> Settings:
        return settings_of({"optim.lr": rate, "seed": self.seed})

    def ask(self, seen: Seen, at_once: int) -> list[Trial]:
        missing = [Trial(self.at(rate), self.probe) for rate in self.rates if not self._has(seen, rate, self.probe)]
        if missing:
            return missing[:at_once]
        best = self._best(seen)
        return [] if self._has(seen, best, 1.0) else [Trial(self.at(best))]

    def answer(self, seen: Seen) -> Answer:
        best = self._best(seen)
        return Answer(settings_of({"optim.lr": best}), seen[self.at(best)].loss_at(1.0), (best, 2 * best), 0.01)

    def _has(self, seen: Seen, rate: float, share: float) -> bool:
        found = seen.get(self.at(rate))
        return found is not None and (found.status in ("diverged", "failed") or found.reached >= share)

    def _best(self, seen: Seen) -> float:
        return min(self.rates, key=lambda rate: seen[self.at(rate)].loss_at(self.probe))


@dataclass
class Trained:
    """Trains jobs one after the other in this process. launches: the jobs of each turn."""

    launches: list[list[tuple[str, ...]]] = field(default_factory=list)

    def __call__(self, jobs: Sequence[tuple[str, ...]], first: int) -> None:
        self.launches.append(list(jobs))
        for job in jobs:
            run(from_hydra(composer().settings(job)))


def session(store: Path, *overrides: str, keys: Sequence[str] = ("optim.lr",)) -> Session:
    """A session of the small run with these overrides."""
    return Session(composer(), [*COMMAND, f"store={store}", *overrides], keys)
