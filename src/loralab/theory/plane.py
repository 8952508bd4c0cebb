"""Which pairs of rates the network of Figure 2 is trained with, and their losses as rows: the study `toy_mlp`.

The column `part` names the kind of a row: plane: a pair of Figure 2, with mean losses over the selection seeds; width:
the same at other widths, with two lines of one ratio each; curve: the best pair of the plane, or its best pair of equal
rates, over time, on a selection seed or a fresh one; own: the best pairs of a single seed, by its training loss.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = [
    "ADVICE",
    "ARMS",
    "CURVE",
    "EARLY",
    "FULL",
    "KEYS",
    "LATE",
    "OWN",
    "SCORES",
    "SMOKE",
    "Size",
    "choice",
    "measured",
    "off_lines",
    "wanted",
]

KEYS = ("part", "n", "arm", "seed", "lr_A", "lr_B", "step")
SCORES = ("chosen_A", "chosen_B", "train", "test")
EARLY, LATE = 10, 200  # the paper's steps; pairs are chosen at the second
CURVE = (0, 1, 2, 3, 4, 5, 6, 8, 10, 13, 17, 22, 29, 38, 50, 66, 87, 115, 152, 200)
ARMS = ("best", "equal")
OWN = (*ARMS, "advice")  # the last: LoRA+'s fixed ratio, chosen from as many pairs as `equal`
ADVICE = 16
CHOSEN = {"lr_A": "chosen_A", "lr_B": "chosen_B"}

Scores = tuple[NDArray[np.float64], NDArray[np.float64]]


class Size(NamedTuple):
    """How much is trained. At n: rates of both factors, and the seeds of their means; fresh: other seeds.

    every: a fresh seed chooses its own pair from every `every`-th rate. At each of widths: lr_A and lr_B of the
    grid, lr_A of the lines of one ratio, seeds. exact: trained in float64, for tests; in twice the time.
    """

    n: int
    rates: tuple[float, ...]
    every: int
    seeds: tuple[int, ...]
    widths: tuple[int, ...]
    lr_a: tuple[float, ...]
    lr_b: tuple[float, ...]
    line: tuple[float, ...]
    width_seeds: tuple[int, ...]
    fresh: tuple[int, ...]
    exact: bool = False


def _logspace(low: float, high: float, count: int) -> tuple[float, ...]:
    """10^low to 10^high, in the digits that a CSV keeps."""
    return tuple(float(f"{rate:.6g}") for rate in np.logspace(low, high, count))


FULL = Size(
    n=100, rates=_logspace(-4, 1, 46), every=2, seeds=(0, 1, 2),
    widths=(32, 64, 128, 256, 512, 1024), lr_a=_logspace(-4, -0.5, 12), lr_b=_logspace(-4, 1, 12),
    line=_logspace(-4, -0.5, 24), width_seeds=tuple(range(6)), fresh=tuple(range(100, 110)),
)  # fmt: skip
SMOKE = Size(
    n=12, rates=_logspace(-2, 0, 6), every=1, seeds=(0, 1),
    widths=(8, 16), lr_a=_logspace(-3, -1, 3), lr_b=_logspace(-3, -1, 3),
    line=_logspace(-3, -1, 3), width_seeds=(0, 1), fresh=(100, 101), exact=True,
)  # fmt: skip


def _product(first: Sequence[float], second: Sequence[float]) -> pd.DataFrame:
    """Every lr_A with every lr_B."""
    return pd.DataFrame({"lr_A": np.repeat(first, len(second)), "lr_B": np.tile(second, len(first)), "arm": ""})


def _with_lines(pairs: pd.DataFrame, lr_A: Sequence[float]) -> pd.DataFrame:
    """The product, and two finer lines of one ratio each, equal rates and ADVICE, so that these are tuned as well."""
    lines = [
        pd.DataFrame({"lr_A": lr_A, "lr_B": [float(f"{ratio * lr:.6g}") for lr in lr_A], "arm": arm})
        for arm, ratio in (("equal", 1), ("advice", ADVICE))
    ]
    return pd.concat([pairs, *lines], ignore_index=True)


def _choices(size: Size, n: int) -> pd.DataFrame:
    """The pairs to choose from at a width, with their arm: equal, advice, or none."""
    if n == size.n:
        return _product(size.rates, size.rates)
    return _with_lines(_product(size.lr_a, size.lr_b), size.line)


def _steps(size: Size, n: int) -> tuple[int, ...]:
    return (EARLY, LATE) if n == size.n else (LATE,)


def wanted(size: Size) -> pd.DataFrame:
    """The KEYS of every row."""
    arms, own, fresh = pd.DataFrame({"arm": ARMS}), pd.DataFrame({"arm": OWN}), pd.DataFrame({"seed": size.fresh})
    every = pd.DataFrame({"seed": (*size.seeds, *size.fresh)})
    curves = arms.merge(every, how="cross").merge(pd.DataFrame({"step": CURVE}), how="cross")
    found = [curves.assign(part="curve", n=size.n)]
    for n in (size.n, *size.widths):
        at = pd.DataFrame({"step": _steps(size, n)})
        seeds = fresh if n == size.n else pd.DataFrame({"seed": size.width_seeds})
        found += [
            _choices(size, n).merge(at, how="cross").assign(part="plane" if n == size.n else "width", n=n),
            own.merge(seeds, how="cross").merge(at, how="cross").assign(part="own", n=n),
        ]
    return pd.concat(found, ignore_index=True)[[*KEYS]]


def measured(size: Size) -> pd.DataFrame:
    """The rows, KEYS and SCORES; train and test are losses, NaN where a seed diverged."""
    found = _printed(size)
    for n in size.widths:
        pairs, at = _choices(size, n), _steps(size, n)
        losses = _trained(size, pairs, at, n, size.width_seeds)
        found.append(_rows(pairs, _mean(losses), at).assign(part="width", n=n))
        found += _own(pairs, losses, at, n, size.width_seeds)
    return pd.concat(found, ignore_index=True).reindex(columns=[*KEYS, *SCORES])


def _printed(size: Size) -> list[pd.DataFrame]:
    """Figure 2: its plane, what was chosen there over time, and what fresh seeds choose for themselves."""
    n, at = size.n, _steps(size, size.n)
    pairs = _choices(size, n)
    grid = _rows(pairs, _mean(_trained(size, pairs, at, n, size.seeds)), at)
    chosen = pd.DataFrame([choice(grid[grid["step"] == LATE], arm) for arm in ARMS])
    every = (*size.seeds, *size.fresh)
    scores = _trained(size, chosen, CURVE, n, every)
    named = chosen[["lr_A", "lr_B"]].rename(columns=CHOSEN).assign(arm=ARMS).reset_index(drop=True)
    curves = [
        _rows(named, own, CURVE).assign(part="curve", n=n, seed=seed) for seed, *own in zip(every, *scores, strict=True)
    ]
    some = size.rates[:: size.every]
    pairs = _with_lines(_product(some, some), size.rates)
    own = _own(pairs, _trained(size, pairs, at, n, size.fresh), at, n, size.fresh)
    return [grid.assign(part="plane", n=n), *curves, *own]


def _trained(size: Size, pairs: pd.DataFrame, at: Sequence[int], n: int, seeds: Sequence[int]) -> Scores:
    """Losses of training and of test, (seeds, pairs, steps) each.

    Next to the rates at which training diverges, 200 steps enlarge a difference: fp32's last bits, which depend on the
    processor, move one loss in a hundred by .1% and some by 5% (303 pairs of FULL, three seeds), and a change of 1e-12
    in lr_B moves float64's by 3e-11 at most. FULL stays in fp32: every pair that its means choose is float64's, too.
    """
    import torch  # it takes a second to import

    from loralab.theory.mlp import train

    dtype = torch.float64 if size.exact else torch.float32
    return train(pairs["lr_A"], pairs["lr_B"], at, n=n, seeds=seeds, dtype=dtype)


def _mean(losses: Scores) -> Scores:
    """Over the seeds; NaN where one of them diverged."""
    return losses[0].mean(0), losses[1].mean(0)


def _own(pairs: pd.DataFrame, losses: Scores, at: Sequence[int], n: int, seeds: Sequence[int]) -> list[pd.DataFrame]:
    """A row for each seed, step and arm: the pair with the seed's lowest training loss."""
    found = []
    for seed, *own in zip(seeds, *losses, strict=True):
        for _, rows in _rows(pairs, own, at).groupby("step"):
            best = pd.DataFrame([choice(rows, arm) for arm in OWN]).rename(columns=CHOSEN)
            found.append(best.assign(arm=OWN, part="own", n=n, seed=seed))
    return found


def _rows(pairs: pd.DataFrame, losses: Sequence[NDArray[np.float64]], at: Sequence[int]) -> pd.DataFrame:
    """A row for each pair and step; losses: of training and of test, (pairs, steps)."""
    found = pairs.loc[pairs.index.repeat(len(at))].reset_index(drop=True).assign(step=np.tile(at, len(pairs)))
    train, test = ([float(f"{value:.6g}") for value in each.ravel()] for each in losses)
    return found.assign(train=train, test=test)


def choice(grid: pd.DataFrame, arm: str, by: str = "train") -> "pd.Series[Any]":
    """The pair with the lowest training loss: of all but the lines, of those with equal rates, or of those with ADVICE.

    The finer lines are excluded from the best pair, since they would favour their ratios.
    """
    if arm == "best":
        some = off_lines(grid)
    elif arm == "equal":
        some = grid[grid["lr_A"] == grid["lr_B"]]
    else:
        some = grid[grid["arm"] == arm]
    return some.nsmallest(1, by).iloc[0]


def off_lines(grid: pd.DataFrame) -> pd.DataFrame:
    """Every lr_A with every lr_B, without the lines of one ratio."""
    found: pd.DataFrame = grid[~grid["arm"].isin(OWN)]
    return found
