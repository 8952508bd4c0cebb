"""A question that a study puts to a paper: its claims with their numbers, judged together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from loralab.studies.pooled import Pooled, pooled_gain
from loralab.studies.stats import Interval
from loralab.studies.verdicts import Verdict, power, seeds_needed, verdicts

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PERCENT", "Claim", "Question", "amount", "gain", "value_text"]

POINTS, TIMES = "points", "x"
PERCENT = {POINTS: 100.0}
"""What a number is multiplied with for its unit; a difference in accuracy is shown in points."""
DIGITS = {"nats": 4}
ACCURACY, LOSS = "test/accuracy", "test/loss"


@dataclass(frozen=True)
class Claim:
    """One arm, or one quantity, with what was found and what the paper says of it.

    arm: a few words that complete the question; paper: the paper's number, as text; number: the same in the unit of
    `found`. The claim is the number or more (or less, if it is below 0, or below 1 for a ratio), or with `exact` the
    number itself. None where the paper has none: the claim is the margin, or with `exact` no difference. pooled: the
    settings that found is the mean of; loss: the difference in test loss, in nats, beside one in accuracy.
    """

    arm: str
    found: Interval
    paper: str = "no number"
    number: float | None = None
    exact: bool = False
    pooled: Pooled | None = None
    loss: Interval | None = None


@dataclass(frozen=True)
class Question:
    """Claims of one paper that are judged together (Holm), the first of which is the primary one.

    source: paper and section, or `in no paper`. unit: of the claims: "points" (differences in accuracy, found as
    shares), "x" (ratios, judged in logarithms), "nats", "doublings" or another word. study and margin (the difference
    that counts as none, in the unit of `found`; for a ratio the factor) are filled in by loralab.studies.committed.
    """

    text: str
    source: str
    unit: str
    claims: Sequence[Claim]
    study: str = ""
    margin: float = math.nan

    @cached_property
    def verdicts(self) -> list[Verdict]:
        """One for each claim."""
        found = [self._scaled(claim.found) for claim in self.claims]
        exact = [claim.exact for claim in self.claims]
        numbers = [self._log(self._number(claim)) for claim in self.claims]
        return verdicts(found, numbers=numbers, margin=self._log(self.margin), exact=exact)

    def power(self, claim: Claim) -> float:
        """The probability that a test of no effect finds the number; of an exact claim, a distance of the margin."""
        return power(self._scaled(claim.found), self._log(self.margin if claim.exact else self._number(claim)))

    def needed(self, claim: Claim) -> float:
        """The n whose 95% interval is half the margin to each side; of a pooled effect the seeds in each setting."""
        items, settings = (claim.pooled.items, len(claim.pooled.settings)) if claim.pooled else (0.0, 1)
        needed = seeds_needed(self._scaled(claim.found), self._log(self.margin), items=items) / max(1, settings)
        return math.ceil(needed) if math.isfinite(needed) else needed

    def tested(self, claim: Claim) -> str:
        """`≥ 1 points`: what the verdict is on; `≥ 0.5 points (the margin)` without a number."""
        sign = "=" if claim.exact else "≥" if self._log(self._number(claim)) > 0 else "≤"
        default = " (the margin)" if claim.number is None and not claim.exact else ""
        return f"{sign} {amount(self._number(claim), self.unit)}{default}"

    def _number(self, claim: Claim) -> float:
        if claim.number is None:
            return self.margin if not claim.exact else 1.0 if self.unit == TIMES else 0.0
        return claim.number

    def _log(self, value: float) -> float:
        if self.unit != TIMES:
            return value
        return math.log(value) if 0 < value < math.inf else math.copysign(math.inf, value - 1)

    def _scaled(self, found: Interval) -> Interval:
        estimate, low, high = (self._log(end) for end in (found.estimate, found.low, found.high))
        return Interval(estimate, low, high, found.n, found.p, found.degrees)


def gain(
    runs: "pd.DataFrame",
    own: object,
    base: object,
    *,
    arm: str,
    by: Sequence[str],
    text: str,
    paper: str = "no number",
    number: float | None = None,
    exact: bool = False,
) -> Claim:
    """The claim on an arm's gain in accuracy over a base, pooled over the settings, with that in loss beside it.

    runs, own, base, arm, by: as in `pooled_gain`.
    """
    found, loss = (pooled_gain(runs, own, base, arm=arm, by=by, metric=each) for each in (ACCURACY, LOSS))
    return Claim(text, found.effect, paper, number, exact, found, loss.effect)


def amount(value: float, unit: str) -> str:
    """`0.5 points`, `1.1x`, `0.25`."""
    return f"{PERCENT.get(unit, 1.0) * value:g}{'' if unit == TIMES else ' '}{unit}".strip()


def value_text(found: Interval, unit: str) -> str:
    """`+0.53 points [-0.20, 1.26], n = 5`; `not identified` where an end of the interval is unbounded."""
    least = 0.0 if unit == TIMES else -math.inf
    if found.low == least or math.isinf(found.high) or math.isnan(found.estimate):
        return f"not identified, n = {found.n}"
    scale, digits = PERCENT.get(unit, 1.0), DIGITS.get(unit, 2)
    sign = "+" if unit in ("points", "nats") else ""
    space = " " if unit and unit != TIMES else ""
    ends = f"[{scale * found.low:.{digits}f}, {scale * found.high:.{digits}f}]"
    shown = ends if found.low == found.low else "(no interval)"
    return f"{scale * found.estimate:{sign}.{digits}f}{space}{unit} {shown}, n = {found.n}"
