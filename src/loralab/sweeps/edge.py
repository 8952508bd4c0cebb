"""Whether the best of several configurations lies at an end of an axis, so that the optimum may lie outside."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from loralab.config.overrides import to_override

__all__ = ["Edge", "Score", "edge", "named"]


@dataclass(frozen=True)
class Score:
    """A configuration and its mean; NaN where a run of it diverged or has no such number."""

    axes: dict[str, Any]  # those that it has
    mean: float
    error: float  # standard error of the mean; NaN for one run

    @classmethod
    def of(cls, axes: dict[str, Any], values: Sequence[float]) -> "Score":
        undefined = not values or any(value != value for value in values)
        error = float("nan") if undefined or len(values) < 2 else stdev(values) / len(values) ** 0.5
        return cls(axes, float("nan") if undefined else fmean(values), error)


@dataclass(frozen=True)
class Edge:
    """A value of the best configuration at the end of its axis.

    combination: the arm; largest: whether it is the largest value tried, or the smallest; tie: a value inside the axis
    whose mean is within one standard error of the best one's, which settles it; None where there is none; tried: the
    number of values.
    """

    combination: dict[str, Any]
    axis: str
    value: float
    largest: bool
    tie: float | None
    tried: int

    @property
    def line(self) -> str:
        """The warning of a study, in one line."""
        text = f"{self.axis} {to_override(self.value)} is the {self._end} tried"
        if self.tie is None:
            text += "; extend the axis before publishing"
        else:
            text += f", and {to_override(self.tie)}, inside the axis, is within one standard error of it"
        return f"{named(self.combination)}{text}"

    @property
    def advice(self) -> str:
        """What is said after any sweep."""
        value = f"{to_override(self.value)} is the {self._end} of {self.tried} tried"
        text = f"the best lies at the edge of {self.axis}: {value}"
        if self.tie is None:
            return f"{text}; try {'larger' if self.largest else 'smaller'} ones"
        return f"{text} ({to_override(self.tie)} is within one standard error)"

    @property
    def _end(self) -> str:
        return "largest" if self.largest else "smallest"


def edge(
    axis: str, best: Score, scores: Sequence[Score], *, least: int, combination: Mapping[str, Any] | None = None
) -> Edge | None:
    """The edge at which the best of `scores` lies on a numeric axis with at least `least` values; None where at none.

    Where that many were tried with all else as in the best, those are the axis: its window may depend on the rest.
    """
    line = [score for score in scores if _alone(axis, score.axes, best.axes)]
    tried = _ordered(axis, line)
    if len(tried) < least:
        line = [score for score in scores if axis in score.axes]
        tried = _ordered(axis, line)
    value = best.axes[axis]
    if len(tried) < least or value not in (tried[0], tried[-1]):
        return None
    inside = [score for score in line if tried[0] < score.axes[axis] < tried[-1]]
    close = [score for score in inside if abs(score.mean - best.mean) <= best.error]
    tie = min(close, key=lambda score: abs(score.mean - best.mean)).axes[axis] if close else None
    return Edge(dict(combination or {}), axis, value, value == tried[-1], tie, len(tried))


def named(combination: Mapping[str, Any]) -> str:
    """The beginning of a line about an arm."""
    text = " ".join(f"{key}={to_override(value)}" for key, value in combination.items())
    return f"{text}: " if text else ""


def _alone(axis: str, some: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two configurations differ on `axis` at most."""
    return some.keys() == other.keys() and all(some[key] == other[key] for key in some if key != axis)


def _ordered(axis: str, scores: Sequence[Score]) -> list[Any]:
    """The values on an axis in their order; none where one of them is no number."""
    values = [score.axes.get(axis) for score in scores]
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return sorted(set(values)) if numeric else []
