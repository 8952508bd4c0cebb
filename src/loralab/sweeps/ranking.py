"""The configurations of a sweep, ranked by their mean over the seeds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, stdev
from typing import Any

from loralab.errors import UserError
from loralab.runs.differing import SEEDS, differing, independent, text_of
from loralab.runs.rows import Row, lower_is_better
from loralab.sweeps.edge import Edge, Score, edge

__all__ = ["Configuration", "Ranking", "rankings"]

# Two means closer than this many standard errors of their difference are not told apart by their seeds.
NOISE = 2.0


@dataclass(frozen=True)
class Configuration:
    """Runs that differ in their seeds alone. settings: those in which the sweep's configurations differ.

    values: of the finished runs, NaN for one that diverged, or that has no such score.
    """

    settings: Mapping[str, Any]
    rows: Sequence[Row]
    metric: str

    @cached_property
    def done(self) -> list[Row]:
        return [row for row in self.rows if row.standing.status in ("success", "diverged")]

    @cached_property
    def values(self) -> list[float]:
        scores = [row.scores.get(self.metric) if row.standing.status == "success" else None for row in self.done]
        return [math.nan if score is None else score for score in scores]

    @property
    def mean(self) -> float:
        """Over the finished runs; NaN where there is none, or where one of them diverged."""
        return fmean(self.values) if self.values else math.nan

    @property
    def deviation(self) -> float:
        """The standard deviation over the seeds; NaN for one run."""
        return stdev(self.values) if len(self.values) > 1 and math.isfinite(self.mean) else math.nan

    def mean_of(self, key: str) -> float:
        """The mean of another score; NaN where one is missing."""
        scores = [row.scores.get(key) for row in self.done]
        return fmean(score for score in scores if score is not None) if scores and None not in scores else math.nan


@dataclass(frozen=True)
class Ranking:
    """One task's configurations, the best first, of equal ones that with the lower loss; those without a mean last.

    columns: the settings in which they differ; axes: those of them that others do not determine, in the order in which
    they are drawn; task: its name where the sweep has several.
    """

    task: str | None
    metric: str
    columns: Sequence[str]
    axes: Sequence[str]
    configurations: Sequence[Configuration]

    @property
    def rows(self) -> list[Row]:
        return [row for each in self.configurations for row in each.rows]

    @property
    def best(self) -> Configuration | None:
        """The first, if it has a mean."""
        return next((each for each in self.configurations if math.isfinite(each.mean)), None)

    def edges(self) -> list[Edge]:
        """The ends of numeric axes, of two values or more, at which the best lies."""
        if self.best is None:
            return []
        scores = {id(each): Score.of(self._axes_of(each), each.values) for each in self.configurations}
        best, every = scores[id(self.best)], list(scores.values())
        found = [edge(axis, best, every, least=2) for axis in self.axes if axis in best.axes]
        return [each for each in found if each is not None]

    def undecided(self) -> int:
        """How many others are within NOISE standard errors of the best, by the standard deviation that all share.

        0 where no configuration has several seeds, since then nothing says how far seeds are apart.
        """
        sound = [each for each in self.configurations if math.isfinite(each.mean)]
        several = [each for each in sound if len(each.values) > 1]
        degrees = sum(len(each.values) - 1 for each in several)
        if not degrees:
            return 0
        variance = sum((len(each.values) - 1) * each.deviation**2 for each in several) / degrees
        best = sound[0]
        return sum(
            abs(each.mean - best.mean) <= NOISE * math.sqrt(variance * (1 / len(each.values) + 1 / len(best.values)))
            for each in sound[1:]
        )

    def _axes_of(self, configuration: Configuration) -> dict[str, Any]:
        return {key: configuration.settings[key] for key in self.axes if key in configuration.settings}


def rankings(
    rows: Sequence[Row], *, metric: str | None, varied: Sequence[str] = (), free: bool = False
) -> list[Ranking]:
    """A ranking for each task, since scores of two tasks do not compare; the tasks in the order of the rows.

    rows: the runs, finished or not; one without settings has not begun, and is left out. metric: a score, as
    `validation/loss`; None: the primary metric on validation at the step whose weights are saved. varied: the keys that
    the sweep sets, which are preferred as axes to those that follow from them, such as the rate of the rate law. free:
    whether each of these varies by itself, and all are axes; else alpha is none where each rank has one.
    Raises UserError where no run has the score.
    """
    there = [row for row in rows if row.settings]
    tasks = list(dict.fromkeys(str(row.settings["task"]) for row in there))
    found = []
    for task in tasks:
        own = [row for row in there if str(row.settings["task"]) == task]
        found.append(_ranking(own, metric or _primary(own), varied, free, task if len(tasks) > 1 else None))
    return found


def _ranking(rows: Sequence[Row], metric: str, varied: Sequence[str], free: bool, task: str | None) -> Ranking:
    columns = [key for key in differing(rows) if key not in SEEDS]
    if free:
        axes = [key for key in columns if key in varied]
    else:
        axes = independent(rows, sorted(columns, key=lambda key: key not in varied))
    groups: dict[tuple[str | None, ...], list[Row]] = {}
    for row in rows:
        own = tuple(text_of(row.settings[key]) if key in row.settings else None for key in columns)
        groups.setdefault(own, []).append(row)
    found = [
        Configuration({key: own[0].settings[key] for key in columns if key in own[0].settings}, own, metric)
        for own in groups.values()
    ]
    if not any(math.isfinite(value) for each in found for value in each.values):
        _refuse_unknown(rows, metric)
    sign = 1 if lower_is_better(metric) else -1
    loss = f"{metric.rpartition('/')[0]}/loss"  # where scores are equal, as accuracies of few rows are

    def place(each: Configuration) -> tuple[bool, float, float]:
        return not math.isfinite(each.mean), _last(sign * each.mean), _last(each.mean_of(loss))

    found.sort(key=place)
    return Ranking(task, metric, columns, [key for key in columns if key in axes], found)


def _last(value: float) -> float:
    """The value, or infinity for NaN, which has no place in an order."""
    return value if math.isfinite(value) else math.inf


def _primary(rows: Sequence[Row]) -> str:
    """`validation/accuracy`, or `best/validation/accuracy` where every run saves the weights of its best step."""
    names = [str(row.facts["metric"]) for row in rows if row.facts.get("metric") is not None]
    best = all(row.settings.get("train.keep") == "best" for row in rows)
    return f"{'best/' if best else ''}validation/{names[0] if names else 'loss'}"


def _refuse_unknown(rows: Sequence[Row], metric: str) -> None:
    """Raises UserError where the finished runs have other scores."""
    known = dict.fromkeys(key for row in rows for key in row.scores)
    if known and metric not in known:
        raise UserError(f"--metric: got {metric!r}; the runs have {', '.join(known)}")
