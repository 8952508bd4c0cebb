"""Ways to tune on a table: each is a function from a drawn world to the pair it would choose, by what it had cost.

plane: lr_A and lr_B, log-uniform over the table, which is the plane of (lr_A, λ) without its empty corners. line: lr_A
alone, at λ = 4. Chosen is the pair of the finished run with the lowest loss so far.
"""

import itertools
import logging
import math
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import optuna
from tuning_tables import SHARES, Array, Draw

from loralab.tuning.law_search import LawSearch
from loralab.tuning.trial import Observed, Settings

LOG_RATIO = 2.0  # λ = 4
# 10 is Optuna's default: at the costs of interest, it would be random search.
STARTUP = 4
Space = Literal["plane", "line"]
Pair = tuple[float, float]  # log2 of lr_A and lr_B
Path = list[tuple[float, Pair]]  # (cost in full runs, the pair chosen so far)

optuna.logging.set_verbosity(logging.ERROR)


def law(rate: float, known: bool = True) -> Callable[[Draw, float], Path]:
    """`loralab tune` with each budget of BUDGETS; rate: the law's at λ = 4."""

    def play(draw: Draw, most: float) -> Path:
        found = []
        for budget in (one for one in BUDGETS if one <= most):
            search = LawSearch({2**LOG_RATIO: rate}, budget=budget, known=known)
            values = dict(search.answer(played(search, draw)).settings)
            found.append((budget, (math.log2(values["optim.lr"]), math.log2(values["optim.lr"]) + LOG_RATIO)))
        return found

    return play


BUDGETS = (1.0, 1.5, 2.0, 2.5, 3.15, 4.0, 5.0, 6.3, 10.0)


def played(search: LawSearch, draw: Draw, at_once: int = 2) -> dict[Settings, Observed]:
    """The runs of a search, trained in a drawn world."""
    seen: dict[Settings, Observed] = {}
    while trials := search.ask(seen, at_once):
        for trial in trials:
            values = dict(trial.settings)
            a = math.log2(values["optim.lr"])
            curve = draw.curve(a, a + math.log2(values["lora.ratio"]), values["seed"])
            points = [(share, float(loss)) for share, loss in zip(SHARES, curve, strict=True) if share <= trial.until]
            status: Literal["success", "paused"] = "success" if trial.until == 1 else "paused"
            seen[trial.settings] = Observed(trial.settings, status, tuple(points))
    return seen


def at_random(space: Space) -> Callable[[Draw, float], Path]:
    """Full runs at random."""

    def play(draw: Draw, most: float) -> Path:
        rng = np.random.default_rng([draw.number, 1])
        runs = ((1.0, pair, draw.curve(*pair, 0)) for pair in _pairs(draw, rng, space))
        return _followed(runs, most)

    return play


def halving(space: Space) -> Callable[[Draw, float], Path]:
    """Successive halving: n random pairs to 20%, the best third to 50%, the best sixth to the end, for each cost."""

    def play(draw: Draw, most: float) -> Path:
        pairs = itertools.islice(_pairs(draw, np.random.default_rng([draw.number, 2]), space), 200)
        begun = [(pair, draw.curve(*pair, 0)) for pair in pairs]
        found: Path = []
        for count in range(3, len(begun)):
            third, sixth = max(1, round(count / 3)), max(1, round(count / 6))
            cost = 0.2 * count + 0.3 * third + 0.5 * sixth
            if cost > most:
                break
            left = begun[:count]
            for share, kept in ((0.2, third), (0.5, sixth), (1.0, 1)):
                left = _lowest(left, SHARES.index(share), kept)
            found.append((cost, left[0][0]))
        return found

    return play


def with_optuna(sampler: Literal["tpe", "gp"], space: Space) -> Callable[[Draw, float], Path]:
    """TPE with Hyperband, which stops runs at 10, 30 or 90% of their steps; or a Gaussian process on full runs."""

    def play(draw: Draw, most: float) -> Path:
        seed = 1000 + draw.number
        chosen = (
            optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP)
            if sampler == "tpe"
            else optuna.samplers.GPSampler(seed=seed, n_startup_trials=STARTUP)
        )
        pruner = optuna.pruners.HyperbandPruner(1, 10, 3) if sampler == "tpe" else optuna.pruners.NopPruner()
        study = optuna.create_study(sampler=chosen, pruner=pruner)
        return _followed(_of_study(study, draw, space), most)

    return play


def grid(draw: Draw, most: float) -> Path:
    """All cells of the table; one point."""
    cells: list[Pair] = [(float(a), float(b)) for a, b in draw.table.places]
    if len(cells) > most:
        return []
    return [(float(len(cells)), min(cells, key=lambda pair: float(draw.curve(pair[0], pair[1], 0)[-1])))]


def _of_study(study: optuna.Study, draw: Draw, space: Space) -> Iterator[tuple[float, Pair, Array]]:
    """(cost, pair, its curve as far as it was trained) of each trial."""
    (low_a, high_a), (low_b, high_b) = _bounds(draw)
    while True:
        trial = study.ask()
        a = trial.suggest_float("a", low_a, high_a)
        b = trial.suggest_float("b", low_b, high_b) if space == "plane" else a + LOG_RATIO
        curve = draw.curve(a, b, 0)
        for tenth, loss in enumerate(curve[:-1], start=1):
            trial.report(float(loss), tenth)
            if trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                yield tenth / 10, (a, b), curve[:tenth]
                break
        else:
            study.tell(trial, float(curve[-1]))
            yield 1.0, (a, b), curve


def _followed(runs: Iterator[tuple[float, Pair, Array]], most: float) -> Path:
    """The path of the best finished run, up to a cost."""
    spent, best, path = 0.0, math.inf, list[tuple[float, Pair]]()
    for cost, pair, curve in runs:
        spent += cost
        if spent > most + 1e-9:
            return path
        if len(curve) == len(SHARES) and float(curve[-1]) < best:
            best = float(curve[-1])
            path.append((spent, pair))
    return path


def _lowest(runs: list[tuple[Pair, Array]], at: int, kept: int) -> list[tuple[Pair, Array]]:
    """The runs with the lowest losses at one point of their curves."""
    return sorted(runs, key=lambda run: float(run[1][at]))[:kept]


def _pairs(draw: Draw, rng: np.random.Generator, space: Space) -> Iterator[Pair]:
    (low_a, high_a), (low_b, high_b) = _bounds(draw)
    while True:
        a = float(rng.uniform(low_a, high_a))
        yield a, float(rng.uniform(low_b, high_b)) if space == "plane" else a + LOG_RATIO


def _bounds(draw: Draw) -> tuple[Pair, Pair]:
    low, high = draw.table.places.min(axis=0), draw.table.places.max(axis=0)
    return (float(low[0]), float(high[0])), (float(low[1]), float(high[1]))
