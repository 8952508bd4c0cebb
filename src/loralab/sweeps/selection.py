"""The best configuration of a finished grid for each arm, and whether it lies at an edge of its axes.

Works on the table that loralab.sweeps.collect makes: its axes are the columns between `stage` and `status`.
"""

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from loralab.config.overrides import to_override
from loralab.errors import UserError
from loralab.store.run_directory import FINAL

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["LOWER", "Edge", "edges", "selected"]

LOWER = ("loss", "mse", "rmse", "mae", "perplexity")
"""Lower is better for a metric whose name ends in one of these; higher for every other."""


@dataclass(frozen=True)
class Edge:
    """A selected value at the end of its axis, so that the optimum may lie outside.

    combination: the arm; largest: whether it is the largest value tried, or the smallest; tie: a value inside the axis
    whose mean is within one standard error of the selected one's, which settles it; None where there is none.
    """

    combination: dict[str, Any]
    axis: str
    value: float
    largest: bool
    tie: float | None

    @property
    def line(self) -> str:
        """The warning, in one line."""
        text = f"{self.axis} {to_override(self.value)} is the {'largest' if self.largest else 'smallest'} tried"
        if self.tie is None:
            text += "; extend the axis before publishing"
        else:
            text += f", and {to_override(self.tie)}, inside the axis, is within one standard error of it"
        return f"{_named(self.combination)}{text}"


@dataclass(frozen=True)
class _Score:
    """A configuration and its mean; NaN where a run of it diverged or has no such number."""

    axes: dict[str, Any]  # those that it has
    mean: float
    error: float  # standard error of the mean; NaN for one run


@dataclass(frozen=True)
class _Arm:
    combination: dict[str, Any]
    scores: list[_Score]
    best: _Score


def selected(table: "pd.DataFrame", *, by: Sequence[str], metric: str, over: Sequence[str]) -> list[dict[str, Any]]:
    """For each combination of the axes `by`, the configuration with the best mean of `metric` over the axes `over`.

    Each as {axis: value} of every axis but `over`, NaN for one that the configuration does not have, and its "mean".
    Only rows of stage "grid" count. A configuration with a diverged run is never selected; of equal means
    the first is. A key of `by` or `over` that does not vary is the same for all, and no axis. Raises UserError while a
    run is not done, or where all of an arm diverged.
    """
    axes = dict.fromkeys((key for key in _axes(table) if key not in over), float("nan"))
    return [{**axes, **arm.best.axes, "mean": arm.best.mean} for arm in _arms(table, by, metric, over)]


def edges(table: "pd.DataFrame", *, by: Sequence[str], metric: str, over: Sequence[str]) -> list[Edge]:
    """The selected values that are the smallest or largest of a numeric axis with at least three values in their arm.

    Where the arm tried three values with all else as selected, those are the axis: its window may depend on the rest.
    """
    found = []
    for arm in _arms(table, by, metric, over):
        for axis in (key for key in arm.best.axes if key not in arm.combination):
            line = [score for score in arm.scores if _alone(axis, score.axes, arm.best.axes)]
            tried = _ordered(axis, line)
            if len(tried) < 3:
                line = arm.scores
                tried = _ordered(axis, line)
            value = arm.best.axes[axis]
            if len(tried) >= 3 and value in (tried[0], tried[-1]):
                inside = [score for score in line if tried[0] < score.axes[axis] < tried[-1]]
                close = [score for score in inside if abs(score.mean - arm.best.mean) <= arm.best.error]
                tie = min(close, key=lambda score: abs(score.mean - arm.best.mean)).axes[axis] if close else None
                found.append(Edge(arm.combination, axis, value, value == tried[-1], tie))
    return found


def _arms(table: "pd.DataFrame", by: Sequence[str], metric: str, over: Sequence[str]) -> list[_Arm]:
    """The arms in the table's order, each with its configurations and the best of them."""
    grid = table[table["stage"] == "grid"]
    if grid.empty:
        return []
    _refuse_unfinished(grid)
    _refuse_unknown(grid, metric)
    axes = _axes(table)
    values: dict[str, tuple[dict[str, Any], list[float]]] = {}
    for row in grid[[*axes, "status", metric]].to_dict("records"):
        own = {
            key: row[key] for key in axes if key not in over and row[key] == row[key]
        }  # NaN: the arm has no such axis
        value = row[metric] if row["status"] == "success" else float("nan")
        values.setdefault(to_override(own), (own, []))[1].append(value)
    arms: dict[str, tuple[dict[str, Any], list[_Score]]] = {}
    for own, several in values.values():
        combination = {key: own[key] for key in by if key in own}
        arms.setdefault(to_override(combination), (combination, []))[1].append(_score(own, several))
    return [_Arm(combination, scores, _best(combination, scores, metric)) for combination, scores in arms.values()]


def _score(axes: dict[str, Any], values: Sequence[float]) -> _Score:
    undefined = any(value != value for value in values)
    error = float("nan") if undefined or len(values) < 2 else stdev(values) / len(values) ** 0.5
    return _Score(axes, float("nan") if undefined else fmean(values), error)


def _best(combination: dict[str, Any], scores: list[_Score], metric: str) -> _Score:
    sign = 1 if metric.endswith(LOWER) else -1
    defined = [score for score in scores if score.mean == score.mean]
    if not defined:
        raise UserError(
            f"{_named(combination)}none of its {len(scores)} configurations can be selected by {metric}: each "
            "has a run that diverged, or that has no such number; widen the axes"
        )
    return min(defined, key=lambda score: sign * score.mean)


def _refuse_unfinished(grid: "pd.DataFrame") -> None:
    left = Counter(status for status in grid["status"] if status not in FINAL)
    if left:
        states = ", ".join(f"{count} {status}" for status, count in left.items())
        raise UserError(
            f"{left.total()} of {len(grid)} runs are not done ({states}), and a selection needs them all; finish the "
            "grid first: its command trains what is missing"
        )


def _refuse_unknown(grid: "pd.DataFrame", metric: str) -> None:
    known = [name for name in grid.columns if "/" in name and name != "best/step"]
    if metric not in known:
        near = difflib.get_close_matches(metric, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"hydra.sweeper.confirm.select: got {metric!r}; the runs have {', '.join(known)}{hint}")


def _alone(axis: str, some: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two configurations differ on `axis` at most."""
    return some.keys() == other.keys() and all(some[key] == other[key] for key in some if key != axis)


def _axes(table: "pd.DataFrame") -> list[str]:
    names = list(table.columns)
    return names[names.index("stage") + 1 : names.index("status")]


def _ordered(axis: str, scores: Sequence[_Score]) -> list[Any]:
    """The values on an axis in their order; none where one of them is no number."""
    values = [score.axes.get(axis) for score in scores]
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return sorted(set(values)) if numeric else []


def _named(combination: Mapping[str, Any]) -> str:
    """The beginning of a line about an arm."""
    text = " ".join(f"{key}={to_override(value)}" for key, value in combination.items())
    return f"{text}: " if text else ""
