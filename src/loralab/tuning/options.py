"""The options of `loralab tune`, checked, and the search that they describe."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from loralab.config.checks import one_of, within
from loralab.errors import UserError

__all__ = ["BUDGET", "Options"]

BUDGET = 5.0
"""Full runs: what the search may cost unless the command says otherwise."""
LARGEST = 10**6


@dataclass(frozen=True)
class Options:
    """search: law or optuna; space, sampler, pruner: of optuna; budget: in full runs; trials: of optuna, at most;
    seeds: of the last candidates; ratio: whether λ is checked where s λ is 1 and 16; confirm: fresh seeds for the gain;
    name: of the session's folder; figure: a file for it; at_once: trials at once, None: the launcher's.
    """

    search: str = "law"
    space: Sequence[str] = ()
    sampler: str = "tpe"
    pruner: str = "halving"
    budget: float | None = None
    trials: int | None = None
    seeds: int = 2
    ratio: bool = False
    confirm: int = 0
    name: str | None = None
    figure: str | None = None
    at_once: int | None = None

    def __post_init__(self) -> None:
        one_of("--search", self.search, ("law", "optuna"))
        if self.budget is not None:
            within("--budget", self.budget, at_least=1, at_most=LARGEST)
        if self.trials is not None:
            within("--trials", self.trials, at_least=1, at_most=LARGEST)
        if self.at_once is not None:
            within("hydra.sweeper.at_once", self.at_once, at_least=1, at_most=LARGEST)
        within("--seeds", self.seeds, at_least=1, at_most=100)
        within("--confirm", self.confirm, at_least=0, at_most=1000)
        if self.name is not None and (not self.name or "/" in self.name or self.name.startswith(".")):
            raise UserError(f"--name: got {self.name!r}; it names a folder, so it has no slash and no dot in front")
        if self.search == "law" and self.space:
            raise UserError("--space: the law search varies the learning rate alone; add --search optuna")
        if self.search == "law" and self.trials is not None:
            raise UserError("--trials: the law search has a budget; give --budget, or add --search optuna")
        if self.search == "law" and (self.sampler, self.pruner) != ("tpe", "halving"):
            raise UserError("--sampler, --pruner: the law search has neither; add --search optuna")
        if self.search == "optuna" and self.ratio:
            raise UserError("--ratio: of the law search; with optuna write --space lora.ratio=[1,4,16]")
        if self.search == "optuna" and not self.space:
            raise UserError("--search optuna: needs --space, as --space 'optim.lr=log(1e-4,1e-2)' 'lora.rank=[4,8,16]'")

    @property
    def asked(self) -> dict[str, Any]:
        """What decides which trials the search asks for."""
        budget = BUDGET if self.budget is None and self.trials is None else self.budget
        return {
            "search": self.search, "space": list(self.space), "budget": budget, "trials": self.trials,
            "seeds": self.seeds, "ratio": self.ratio,
        } | ({"sampler": self.sampler, "pruner": self.pruner} if self.search == "optuna" else {})  # fmt: skip
