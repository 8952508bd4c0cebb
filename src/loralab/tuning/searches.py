"""The search that the options describe, and the rates that it starts from."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from loralab.errors import UserError
from loralab.runs.plan import Plan
from loralab.runs.rates import has_factors
from loralab.theory.rate_law import SCALINGS
from loralab.tuning.options import Options
from loralab.tuning.session import Session
from loralab.tuning.trial import Search, Settings

__all__ = ["CHECKED", "keys_of", "predicted", "search_of"]

CHECKED = (1.0, 16.0)
"""The values of s λ, the scaling times λ, that --ratio checks."""


def keys_of(options: Options) -> list[str]:
    """What the search varies, beside the seed."""
    if options.search == "optuna":
        from loralab.tuning.space import read_space

        return [axis.key for axis in read_space(options.space)]
    return ["lora.ratio", "optim.lr"] if options.ratio else ["optim.lr"]


def predicted(options: Options, session: Session) -> dict[float | None, float]:
    """The default rate of each λ that is tried, that of the command first; of None where λ stays as it is."""
    config = session.base.config
    if not options.ratio:
        return {None: _rate(session.base)}
    if not has_factors(config):
        raise UserError(f"--ratio: method={config.method.name} has no A and B, so no λ; leave it out")
    scaling = SCALINGS[config.lora.scaling](config.lora.alpha, config.lora.rank)
    ratios = dict.fromkeys([config.lora.ratio, *(float(f"{value / scaling:.4g}") for value in CHECKED)])
    return {ratio: _rate(session.planned((), {"lora.ratio": ratio})) for ratio in ratios}


def search_of(
    options: Options, session: Session, rates: Mapping[float | None, float], folder: Path
) -> tuple[Search, Callable[[], Sequence[Settings]]]:
    """The search, and what gives the trials that it remembers; rates: as `predicted`; folder: of the session."""
    first = session.base.config.seed
    seeds = range(first, first + options.seeds)
    asked = options.asked
    if options.search == "optuna":
        from loralab.tuning.optuna_search import OptunaSearch
        from loralab.tuning.space import check, read_space

        space, budget = read_space(options.space), asked["budget"]
        check(space, lambda more: session.composer.settings([*session.arguments, *more]))
        optuna = OptunaSearch(
            space, path=folder / "optuna.journal", command=[session.base.directory.hash], sampler=options.sampler,
            pruner=options.pruner, trials=options.trials, budget=math.inf if budget is None else budget, seeds=seeds,
            every=session.every,
        )  # fmt: skip
        return optuna, optuna.remembered
    from loralab.tuning.law_search import LawSearch

    return LawSearch(rates, seeds=seeds, budget=asked["budget"], known=session.is_measured), tuple


def _rate(planned: Plan) -> float:
    return float(planned.config.optim.lr)  # a plan has resolved auto
