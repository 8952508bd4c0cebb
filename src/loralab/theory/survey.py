"""Which settings of the linear model are measured, and their numbers: what the study `toy_linear` is made of, as rows.

The column `part` names what a value is: the slope over widths of medians of |.| (exponent), such a median at one width
(curve), the largest stable rate (stable), the mean loss of a pair of rates (plane), the best pair's ratio (best).
A seed is a batch of models that no other seed shares; its draws of z or b are the same at every width.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from loralab.theory.gamma import QUANTITIES, RATES, Init, Optimizer, exponents
from loralab.theory.linear import Start, fitted, largest_stable, losses, start, train

__all__ = [
    "FULL",
    "INITS",
    "KEYS",
    "OPTIMIZERS",
    "PLANE_STEPS",
    "SHOWN",
    "SMOKE",
    "STABLE",
    "STABLE_STEPS",
    "STEPS",
    "C",
    "Size",
    "measured",
    "wanted",
]

KEYS = ("part", "init", "optimizer", "rates", "range", "step", "quantity", "log2_n", "lr_A", "lr_B", "seed")
Row = dict[str, Any]

INITS: tuple[Init, ...] = ("A", "B")
OPTIMIZERS: tuple[Optimizer, ...] = ("sgd", "sign")
C = 0.25  # the constant of every rate
DECAY = {"sgd": 1.0, "sign": 0.9}  # two equal steps of sign-Adam cancel exactly, which the calculus ignores
DRAWN = 14  # log2 of the widest inputs that are drawn
STEPS, SHOWN = 3, 2  # shown: the first step in which every part of the update acts
STABLE: dict[Init, dict[str, float]] = {  # exponents of the largest stable rate: of both; of lr_B with lr_A = c/n
    "A": {"equal": -0.5, "lr_B": 0.0},
    "B": {"equal": -1.0, "lr_B": 0.0},
}
STABLE_STEPS, PLANE_STEPS = 16, 10


def octaves(low: float, high: float, step: float) -> list[float]:
    return np.arange(low, high + step / 2, step).tolist()


class Size(NamedTuple):
    """How much is measured: range -> its widths, what for -> draws of a seed; widths and rates as their log2."""

    seeds: int
    widths: dict[str, Sequence[int]]
    draws: dict[str, int]
    stable_n: Sequence[int]
    stable_lr: Sequence[float]
    plane_n: Sequence[int]
    lr_a: Sequence[float]
    lr_b: Sequence[float]


FULL = Size(
    seeds=8,
    widths={"large": range(40, 61, 2), "small": range(5, 15)},
    draws={"large": 1024, "small": 256, "stable": 64, "plane": 64},
    stable_n=range(6, 21, 2),
    stable_lr=octaves(-24, 6, 0.25),
    plane_n=(7, 12),
    lr_a=octaves(-17, -1, 0.5),
    lr_b=octaves(-8, 7, 0.5),
)
SMOKE = Size(
    seeds=2,
    widths={"large": (40, 50, 60), "small": (5, 7, 9)},
    draws=dict.fromkeys(FULL.draws, 8),
    stable_n=(6, 10),
    stable_lr=octaves(-14, 6, 1),
    plane_n=(7, 12),
    lr_a=octaves(-16, 0, 4),
    lr_b=octaves(-8, 4, 4),
)


def wanted(of: Size) -> list[Row]:
    """The KEYS of every row, without those that a part does not have."""
    return [*_wanted(of)]


def _wanted(of: Size) -> Iterator[Row]:
    seeds = range(of.seeds)
    for init in INITS:
        for optimizer in OPTIMIZERS:
            own = {"init": init, "optimizer": optimizer}
            for name in RATES:
                for quantity in QUANTITIES:
                    row = own | {"rates": name, "quantity": quantity}
                    for where in of.widths:
                        for step in range(1, STEPS + 1):
                            at = row | {"part": "exponent", "range": where, "step": step}
                            yield from (at | {"seed": seed} for seed in seeds)
                    at = row | {"part": "curve", "step": SHOWN}
                    yield from (at | {"log2_n": log2_n} for log2_n in of.widths["small"])
            for which in STABLE[init]:
                for log2_n in of.stable_n:
                    at = own | {"part": "stable", "rates": which, "log2_n": log2_n}
                    yield from (at | {"seed": seed} for seed in seeds)
        for log2_n in of.plane_n:
            at = {"init": init, "optimizer": "sgd", "log2_n": log2_n}
            yield from (at | {"part": "best", "seed": seed} for seed in seeds)
            for lr_a in of.lr_a:
                yield from (at | {"part": "plane", "lr_A": 2**lr_a, "lr_B": 2**lr_b} for lr_b in of.lr_b)


def measured(of: Size) -> list[Row]:
    """Every wanted row with its value, and with what the calculus predicts of an exponent."""
    return [row for init in INITS for part in (_exponents, _stable, _planes) for row in part(of, init)]


def _begun(of: Size, init: Init, what: str, log2_n: int, seed: int) -> Start:
    """The models of a seed at a width; inputs are drawn where the width allows it."""
    rng = np.random.default_rng([INITS.index(init), [*of.draws].index(what), seed])
    return start(init, 2.0**log2_n, of.draws[what], rng, vectors=log2_n <= DRAWN)


def _exponents(of: Size, init: Init) -> Iterator[Row]:
    for where, widths in of.widths.items():
        begun = [[_begun(of, init, where, log2_n, seed) for log2_n in widths] for seed in range(of.seeds)]
        for optimizer in OPTIMIZERS:
            for name, rates in RATES.items():
                predicted = exponents(init, optimizer, rates, STEPS)
                medians = np.array([[_medians(s, n, optimizer, rates) for s, n in zip(of_seed, widths, strict=True)]
                                    for of_seed in begun])  # fmt: skip
                for quantity, of_it in zip(QUANTITIES, np.moveaxis(medians, 2, 0), strict=True):
                    own = {"init": init, "optimizer": optimizer, "rates": name, "quantity": quantity}
                    slopes = [[fitted(widths, values) for values in of_seed.T] for of_seed in of_it]
                    for (seed, step), value in np.ndenumerate(slopes):
                        at = own | {"part": "exponent", "range": where, "step": step + 1, "seed": seed}
                        yield at | {"value": value, "predicted": predicted[step][quantity]}
                    if where == "small":
                        for log2_n, value in zip(widths, np.median(of_it, axis=0)[:, SHOWN - 1], strict=True):
                            yield own | {"part": "curve", "step": SHOWN, "log2_n": log2_n, "value": value}


def _medians(begin: Start, log2_n: int, optimizer: Optimizer, rates: tuple[float, float]) -> np.ndarray[Any, Any]:
    """(quantities, steps): of |.|, over the draws."""
    lr_a, lr_b = (C * 2.0 ** (log2_n * rate) for rate in rates)
    path = train(begin, lr_a, lr_b, steps=STEPS, optimizer=optimizer, decay=DECAY[optimizer])
    return np.median(np.abs([path[quantity] for quantity in QUANTITIES]), axis=-1)


def _stable(of: Size, init: Init) -> Iterator[Row]:
    """The median over a seed's draws."""
    rates = 2.0 ** np.array(of.stable_lr)
    for optimizer in OPTIMIZERS:
        for which in STABLE[init]:
            for log2_n in of.stable_n:
                lr_a = rates if which == "equal" else C / 2.0**log2_n
                at = {"part": "stable", "init": init, "optimizer": optimizer, "rates": which, "log2_n": log2_n}
                for seed in range(of.seeds):
                    begin = _begun(of, init, "stable", log2_n, seed)
                    last = largest_stable(begin, lr_a, rates, steps=STABLE_STEPS, optimizer=optimizer)
                    yield at | {"seed": seed, "value": np.median(np.where(last < 0, 0.0, rates[last]))}


def _planes(of: Size, init: Init) -> Iterator[Row]:
    """The mean over all draws: inf where one of them diverged. Each seed has its own best pair."""
    lr_a, lr_b = 2.0 ** np.array(of.lr_a), 2.0 ** np.array(of.lr_b)
    for log2_n in of.plane_n:
        own = {"init": init, "optimizer": "sgd", "log2_n": log2_n}
        means = []
        for seed in range(of.seeds):
            begin = _begun(of, init, "plane", log2_n, seed).each(2)
            path = train(begin, lr_a[:, None, None], lr_b[:, None], steps=PLANE_STEPS)
            means.append(losses(path)[-1].mean(axis=-1))
            a, b = np.unravel_index(np.argmin(means[-1]), means[-1].shape)
            yield own | {"part": "best", "seed": seed, "value": lr_b[b] / lr_a[a]}
        for (a, b), loss in np.ndenumerate(np.mean(means, axis=0)):
            yield own | {"part": "plane", "lr_A": lr_a[a], "lr_B": lr_b[b], "value": loss}
