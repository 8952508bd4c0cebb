"""How well a law of the form lr_A = c r^-a λ^-b s^-d predicts tuned arms: pure functions over a table of arms.

arms: one row per arm, with task, train_rows, targets, init, rank, ratio, s, steps, batch_size and tuned, the tuned
rate. Doublings are log2 of tuned / predicted.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import scipy

from loralab.studies.stats import Array, Interval

__all__ = ["exponents", "one_task", "rms", "share", "without_task"]


def without_task(arms: pd.DataFrame, families: Mapping[str, str]) -> pd.Series:
    """`doublings` less their mean in the other tasks, for the same targets and init: c is fitted on these alone.

    The others count equally; families: of tasks that are left out together, the name of each but one -> that one's. NaN
    where no other task has such arms.
    """
    family = arms["task"].replace(dict(families))
    found = pd.Series(np.nan, index=arms.index)
    for _, own in arms.groupby(["targets", "init"]):
        levels = own["doublings"].groupby(family).mean()
        for task, rows in own.groupby(family):
            found[rows.index] = rows["doublings"] - levels.drop(task).mean()
    return found


def exponents(arms: pd.DataFrame) -> dict[str, Interval]:
    """-a, -b and -d as the slopes of log lr_A in log r, log λ and log s, with a c for each task, targets and length.

    Least squares; 95%, Student t; p: against 0.
    """
    design, y = _design(arms), np.log2(arms["tuned"].to_numpy(dtype=float))
    solved, _, rank, _ = np.linalg.lstsq(design, y)
    degrees = len(y) - int(rank)
    variance = float(np.sum((y - design @ solved) ** 2)) / max(degrees, 1)
    spread = np.sqrt(np.diag(np.linalg.pinv(design.T @ design)) * variance)[:3]
    t = float(scipy.stats.t.ppf(0.975, degrees)) if degrees > 0 else np.nan
    found = {}
    for name, slope, error in zip(("r", "λ", "s"), solved[:3].tolist(), spread.tolist(), strict=True):
        p = 2 * float(scipy.stats.t.sf(abs(slope) / error, degrees)) if error > 0 and degrees > 0 else np.nan
        found[name] = Interval(slope, slope - t * error, slope + t * error, len(y), p)
    return found


def _design(arms: pd.DataFrame) -> Array:
    """log2 of r, λ and s, then a column for each group of arms that differ in these alone."""
    groups = arms.groupby(["task", "train_rows", "targets", "steps", "batch_size"], dropna=False).ngroup()
    return np.column_stack([_logs(arms), groups.to_numpy()[:, None] == np.unique(groups)])


def _logs(arms: pd.DataFrame) -> Array:
    logs: Array = np.log2(arms[["rank", "ratio", "s"]].to_numpy(dtype=float))
    return logs


def one_task(arms: pd.DataFrame, task: str, families: Mapping[str, str]) -> pd.Series:
    """Doublings on other tasks of a law with free exponents and a c for each set of targets, fitted on one task alone.

    Without the arms of targets that the one task does not have.
    """
    mine, others = arms[arms["task"] == task], arms[arms["task"].replace(dict(families)) != task]
    known = sorted(mine["targets"].unique())

    def design(rows: pd.DataFrame) -> Array:
        return np.column_stack([_logs(rows), rows["targets"].to_numpy()[:, None] == np.array(known)])

    others = others[others["targets"].isin(known)]
    solved = np.linalg.lstsq(design(mine), np.log2(mine["tuned"].to_numpy(dtype=float)))[0]
    return pd.Series(np.log2(others["tuned"].to_numpy(dtype=float)) - design(others) @ solved, index=others.index)


def share(doublings: pd.Series, null: float = 0.9) -> Interval:
    """The share within a factor of 2 (Wilson's interval); p: of the exact binomial test against `null`.

    Both treat arms as independent; the arms of one task share its level, so that few tasks say less than n does.
    """
    known = doublings.dropna()
    if known.empty:
        return Interval(np.nan, np.nan, np.nan, 0, np.nan)
    inside = int((known.abs() <= 1).sum())
    found = scipy.stats.binomtest(inside, len(known), null)
    ends = found.proportion_ci(method="wilson")
    return Interval(inside / len(known), float(ends.low), float(ends.high), len(known), float(found.pvalue))


def rms(doublings: pd.Series) -> float:
    """The root of the mean square, without NaN."""
    return float(np.sqrt((doublings.dropna() ** 2).mean()))
