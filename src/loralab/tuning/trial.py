"""What a tuning session trains, what it has seen, and the protocol of a search. Imports none of the others."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

__all__ = ["Answer", "Observed", "Search", "Seen", "Settings", "Trial", "settings_of"]

Settings = tuple[tuple[str, Any], ...]
"""(key, value) pairs sorted by key, beside the command's: (("lora.ratio", 4.0), ("optim.lr", 1e-3), ("seed", 0))."""


def settings_of(values: Mapping[str, Any]) -> Settings:
    """The pairs of a mapping, sorted by key."""
    return tuple(sorted(values.items()))


@dataclass(frozen=True)
class Trial:
    """A run to be trained up to `until`, a share of its steps; 1 is its end. Its schedule is the full one."""

    settings: Settings
    until: float = 1.0


@dataclass(frozen=True)
class Observed:
    """A run as far as it was trained.

    curve: (share of the steps, validation loss in nats), ascending; a loss that is not finite is math.inf.
    """

    settings: Settings
    status: Literal["success", "paused", "diverged", "failed"]
    curve: tuple[tuple[float, float], ...]

    @property
    def reached(self) -> float:
        """The share of the steps of the last point of the curve; 0 without one."""
        return self.curve[-1][0] if self.curve else 0.0

    def loss_at(self, share: float) -> float:
        """The loss at the last point not after `share`, to rounding; inf without one, or if it diverged or failed."""
        if self.status in ("diverged", "failed"):
            return math.inf
        before = [loss for at, loss in self.curve if at <= share + 1e-9]
        return before[-1] if before else math.inf


Seen = Mapping[Settings, Observed]
"""Every run that the search may use, also runs that the store had before."""


@dataclass(frozen=True)
class Answer:
    """The recommendation: settings without the seed, and how sure it is.

    loss: the estimated final validation loss; plateau: the smallest and the largest rate whose loss is within noise of
    it, None where rates were not searched; noise: the standard deviation of a final loss between seeds, None if it is
    not known; stopped: runs that were stopped early; notes: lines for people.
    """

    settings: Settings
    loss: float
    plateau: tuple[float, float] | None
    noise: float | None
    stopped: tuple[Settings, ...] = ()
    notes: tuple[str, ...] = ()


class Search(Protocol):
    """Which trials next, given what was seen. `ask` is a pure function of `seen`, so that a killed session goes on."""

    def ask(self, seen: Seen, at_once: int) -> list[Trial]:
        """At most `at_once` trials to train now, none of which `seen` has as far as it asks; [] at the end."""

    def answer(self, seen: Seen) -> Answer:
        """The recommendation from what was seen; raises UserError where no run can be recommended."""
