"""The best configuration of a finished grid for each arm, and whether it lies at an edge of its axes.

Works on the table that loralab.sweeps.collect makes: its axes are the columns between `stage` and `status`.
"""

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loralab.config.overrides import to_override
from loralab.errors import UserError
from loralab.runs.rows import lower_is_better
from loralab.store.run_directory import FINAL
from loralab.sweeps.edge import Edge, Score, edge, named

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Edge", "edges", "selected"]


@dataclass(frozen=True)
class _Arm:
    combination: dict[str, Any]
    scores: list[Score]
    best: Score


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
    """The selected values at an end of a numeric axis that has at least three values in their arm."""
    found = []
    for arm in _arms(table, by, metric, over):
        axes = [axis for axis in arm.best.axes if axis not in arm.combination]
        found += [edge(axis, arm.best, arm.scores, least=3, combination=arm.combination) for axis in axes]
    return [each for each in found if each is not None]


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
    arms: dict[str, tuple[dict[str, Any], list[Score]]] = {}
    for own, several in values.values():
        combination = {key: own[key] for key in by if key in own}
        arms.setdefault(to_override(combination), (combination, []))[1].append(Score.of(own, several))
    return [_Arm(combination, scores, _best(combination, scores, metric)) for combination, scores in arms.values()]


def _best(combination: dict[str, Any], scores: list[Score], metric: str) -> Score:
    sign = 1 if lower_is_better(metric) else -1
    defined = [score for score in scores if score.mean == score.mean]
    if not defined:
        raise UserError(
            f"{named(combination)}none of its {len(scores)} configurations can be selected by {metric}: each "
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


def _axes(table: "pd.DataFrame") -> list[str]:
    names = list(table.columns)
    return names[names.index("stage") + 1 : names.index("status")]
