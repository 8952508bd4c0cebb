"""The tuned rate of each arm of a study: the lowest point of a parabola in log lr through its best rate and neighbours.

An arm is all runs of a first stage that differ only in the rate and the seed.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from loralab.studies.stats import Array
from loralab.theory.rate_law import SCALINGS

__all__ = ["SETTING", "Tuned", "fresh_noise", "seed_noise", "tuned_arms", "tuned_rate"]

ONE_SEED = 0.012  # nats; for studies of one seed: that of the others, .006 to .02 (`seed_noise`)
COARSEST = 2.01  # factor between neighbouring rates; a parabola over a wider window misses the steep side
WIDE = 1.96  # standard errors of a 95% interval
DEFAULTS: dict[str, Any] = {
    "task.train_rows": np.nan,
    "method": "lora",
    "lora.init": "A",
    "lora.scaling": "alpha/r",
    "lora.bias": "none",
    "lora.targets": "q,v",
    "optim.head_lr": "pinned",
    "train.batch_size": 32,
}
"""What a column that a CSV lacks, or an empty cell, stands for."""
METHODS: dict[str, dict[str, Any]] = {  # with what conf/method sets; other methods have no rate of this kind
    "lora": {"lora.ratio": 1.0},
    "lora_plus": {"method": "lora", "lora.ratio": 4.0},
    "rslora": {"method": "lora", "lora.ratio": 1.0, "lora.scaling": "alpha/sqrt_r"},
    "dora": {"lora.ratio": 1.0},
    "lora_prefix": {"lora.ratio": 1.0},
    "full": {"lora.ratio": 1.0, "lora.rank": 0, "lora.alpha": 0},
}
SETTING = [*DEFAULTS, "task", "model", "lora.rank", "lora.alpha", "lora.ratio", "train.steps"]
"""The columns that tell arms apart."""


@dataclass(frozen=True)
class Tuned:
    """The tuned rate with its 95% interval, which is that of the noise between seeds; an end may be 0 or inf."""

    rate: float
    low: float
    high: float


def tuned_arms(frame: pd.DataFrame, study: str, *, noise: float | None = None) -> pd.DataFrame:
    """One row per arm whose best rate lies between two others, each at most a factor of 2 away; no row for the rest.

    frame: a study's CSV; noise: of one loss, in nats; None: `seed_noise` of the frame. Columns: study, SETTING, s (the
    scaling), seeds, tuned, low, high.
    """
    runs = with_settings(frame)
    noise = seed_noise(runs) if noise is None else noise
    rows = []
    for key, own in runs.groupby(SETTING, dropna=False, sort=False):
        rates, losses = _by_seed_and_rate(own)
        found = tuned_rate(rates, losses, noise)
        if found is not None:
            rate = {"seeds": len(losses), "tuned": found.rate, "low": found.low, "high": found.high}
            rows.append({"study": study, **dict(zip(SETTING, key, strict=True)), **rate})
    arms = pd.DataFrame(rows, columns=["study", *SETTING, "seeds", "tuned", "low", "high"])
    rules = zip(arms["lora.scaling"], arms["lora.alpha"], arms["lora.rank"], strict=True)
    return arms.assign(s=[SCALINGS[rule](alpha, int(rank)) if rank else np.nan for rule, alpha, rank in rules])


def with_settings(frame: pd.DataFrame) -> pd.DataFrame:
    """The first stage's runs with every column of SETTING, filled in where the study does not vary it."""
    runs = frame[frame["stage"] == "grid"].copy()
    for key, value in (DEFAULTS | {"lora.ratio": np.nan}).items():
        given = runs[key] if key in runs else pd.Series(np.nan, index=runs.index, dtype=object)
        runs[key] = given.where(given.notna(), value)
    runs = runs[runs["method"].isin(METHODS)]
    parts = [_as_method(own, str(method)) for method, own in runs.groupby("method", sort=False)]
    runs = pd.concat(parts) if parts else runs
    pinned = ~runs["optim.head_lr"].astype(str).str.startswith("$")
    runs["optim.head_lr"] = runs["optim.head_lr"].astype(str).where(~pinned, "pinned")
    return runs


def _as_method(own: pd.DataFrame, method: str) -> pd.DataFrame:
    """One method's runs with what it sets; a ratio that the study varies stays."""
    sets = METHODS[method]
    ratio = own["lora.ratio"].astype(float).fillna(sets["lora.ratio"])
    return own.assign(**{**sets, "lora.ratio": ratio})


def _by_seed_and_rate(own: pd.DataFrame) -> tuple[Array, Array]:
    """The rates of an arm, ascending, and (seeds, rates): the losses; NaN where a run diverged or is not there."""
    rates, column = np.unique(own["optim.lr"].to_numpy(dtype=float), return_inverse=True)
    seeds, row = np.unique(own["seed"].to_numpy(), return_inverse=True)
    losses = np.full((len(seeds), len(rates)), np.nan)
    losses[row, column] = own["validation/loss"].to_numpy(dtype=float)
    return rates, losses


def tuned_rate(rates: Array, losses: Array, noise: float) -> Tuned | None:
    """The lowest point of the parabola through the best mean loss and its neighbours; None if there is no such point.

    rates: ascending; losses: (seeds, rates), NaN for a run that diverged; noise: of one loss, in nats. A neighbour that
    diverged counts as infinitely bad: the point is half way to the other one. There, and where the noise could have
    made the valley (its curvature's interval contains 0), the interval ends at the nearest rates that are worse than
    the best one beyond the noise.
    """
    means = losses.mean(axis=0)
    means = np.where(np.isnan(means), np.inf, means)
    best = int(means.argmin())
    if not 0 < best < len(rates) - 1:
        return None
    x, (left, lowest, right) = np.log(rates[best - 1 : best + 2]), means[best - 1 : best + 2]
    if max(np.diff(x)) > np.log(COARSEST) or not np.isfinite(lowest):
        return None
    step, below, above = (x[2] - x[0]) / 2, left - lowest, right - lowest
    spread, curved = noise / np.sqrt(len(losses)), below + above
    if not np.isfinite(curved):
        at = x[1] + step / 2 * (float(np.isinf(below)) - float(np.isinf(above)))
    else:
        at = x[1] + (step / 2 * (below - above) / curved if curved > 0 else 0.0)
    if not WIDE * np.sqrt(6) * spread < curved < np.inf:  # left - 2 lowest + right has the variance 6 spread^2
        return Tuned(float(np.exp(at)), *_bracket(rates, means, best, WIDE * np.sqrt(2) * spread))
    gradient = np.array([above, below - above, below]) / curved**2
    error = step * float(np.linalg.norm(gradient)) * spread
    low, high = np.exp([at - WIDE * error, at + WIDE * error]).tolist()
    return Tuned(float(np.exp(at)), low, high)


def _bracket(rates: Array, means: Array, best: int, beyond: float) -> tuple[float, float]:
    """The nearest rates to each side whose losses exceed the best one by more than this; 0 and inf without any."""
    worse = means > means[best] + beyond
    low, high = rates[:best][worse[:best]], rates[best + 1 :][worse[best + 1 :]]
    return float(low[-1]) if len(low) else 0.0, float(high[0]) if len(high) else np.inf


def fresh_noise(frame: pd.DataFrame, arm: str, metric: str = "validation/loss") -> float:
    """`seed_noise` from a second stage: of the losses of all values of the axis `arm` on the same fresh seeds.

    NaN without a second stage of two arms and two seeds, or where a run of it diverged.
    """
    scores = frame[frame["stage"] == "confirm"].pivot(index="seed", columns=arm, values=metric).to_numpy()
    return _residual_spread(scores) if min(scores.shape) > 1 else float("nan")


def seed_noise(runs: pd.DataFrame) -> float:
    """Between seeds, the standard deviation of a loss at one rate, less what a seed does to all rates: median of arms.

    Over the best three rates of each arm with two seeds or more; ONE_SEED where there is no such arm.
    """
    found = []
    for _, own in runs.groupby(SETTING, dropna=False, sort=False):
        _, losses = _by_seed_and_rate(own)
        near = losses[:, np.argsort(losses.mean(axis=0))[:3]]  # NaN, of a run that diverged, is last
        if min(near.shape) > 1 and np.isfinite(near).all():
            found.append(_residual_spread(near))
    return float(np.median(found)) if found else ONE_SEED


def _residual_spread(losses: Array) -> float:
    """The standard deviation of losses (seeds, columns) without the effects of the seeds and of the columns."""
    rest = losses - losses.mean(axis=0) - losses.mean(axis=1, keepdims=True) + losses.mean()
    return float(np.sqrt((rest**2).sum() / ((losses.shape[0] - 1) * (losses.shape[1] - 1))))
