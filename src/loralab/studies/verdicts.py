"""One of four verdicts on a difference between arms, and the number of seeds that would tell it.

A paper's claim is a number, and a margin named beforehand says which differences count as none. The verdict uses both;
a test against 0 alone cannot tell an absent effect from one that was not measured well enough.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import scipy  # imported on first use: scipy.stats takes half a second to import

from loralab.studies.stats import Interval, holm

__all__ = [
    "CONTRADICTED",
    "EQUIVALENT",
    "HELD",
    "UNKNOWN",
    "Verdict",
    "degrees_of",
    "power",
    "seeds_needed",
    "standard_error",
    "verdict",
    "verdicts",
]

Verdict = Literal["held", "contradicted in size", "equivalent", "not identified"]
HELD: Verdict = "held"
CONTRADICTED: Verdict = "contradicted in size"
EQUIVALENT: Verdict = "equivalent"
UNKNOWN: Verdict = "not identified"

LEVEL = 0.05
MOST_SEEDS = 100_000


def verdict(found: Interval, *, number: float, margin: float, exact: bool = False) -> Verdict:
    """The verdict on the only claim of a question: `verdicts` of one."""
    return verdicts([found], numbers=[number], margin=margin, exact=[exact])[0]


def verdicts(
    found: Sequence[Interval], *, numbers: Sequence[float], margin: float, exact: Sequence[bool]
) -> list[Verdict]:
    """The verdicts on the claims of one question: what was found, and the paper's numbers in the same unit.

    A claim says that the value is the number or more (or less, for a negative number), or exact: that it is the number.
    Of a gain, the first that is true: equivalent, if the 90% interval lies within ± margin (two one-sided tests at 5%,
    Schuirmann 1987); contradicted in size, if the 95% interval ends before the number; held, if it lies beyond 0; not
    identified. Of an exact claim: held, if the 90% interval lies within the margin of the number; contradicted in size,
    if the 95% interval excludes the number; not identified. The levels are Holm's over the question's claims, for each
    of the three tests in itself. An interval that is not symmetric is tested by its end toward the tested value.
    """
    tests = np.full((3, len(found)), np.nan)
    for place, (each, number, same) in enumerate(zip(found, numbers, exact, strict=True)):
        if not _judgeable(each):
            continue
        shift, sign = (number, 1) if same else (0.0, math.copysign(1.0, number))
        tests[0, place] = max(_above(each, shift - margin), _above(each, shift + margin, -1))
        tests[1, place] = min(1.0, 2 * _above(each, number, -sign))
        if same:
            tests[1, place] = min(1.0, 2 * min(_above(each, number, side) for side in (-1, 1)))
        else:
            tests[2, place] = min(1.0, 2 * _above(each, 0.0, sign))
    small = np.array([holm(p) for p in tests]) < LEVEL
    return [
        (HELD if same else EQUIVALENT) if near else CONTRADICTED if less else HELD if gained else UNKNOWN
        for same, (near, less, gained) in zip(exact, small.T, strict=True)
    ]


def power(found: Interval, gain: float) -> float:
    """The probability that a test of 0 at 5% finds a true gain of this size, at the standard error found.

    From the noncentral t distribution; NaN without an interval.
    """
    if not _judgeable(found):
        return math.nan
    error, degrees = standard_error(found), degrees_of(found)
    if error == 0:
        return float(gain != 0)
    edge = float(scipy.stats.t.ppf(1 - LEVEL / 2, degrees))
    off = abs(gain) / error
    other = scipy.stats.nct.cdf(-edge, degrees, off)  # NaN at some distances, where it is below 1e-20
    return float(scipy.stats.nct.sf(edge, degrees, off) + np.nan_to_num(other))


def seeds_needed(found: Interval, margin: float, *, items: float = 0.0) -> float:
    """The fewest seeds whose 95% interval is at most margin / 2 to each side, at the spread between the n seeds found.

    items: the part of the standard error that no seed reduces. At least 2; inf beyond MOST_SEEDS; NaN without an
    interval. Of a pooled effect the seeds count over all settings.
    """
    if not _judgeable(found):
        return math.nan
    spread = math.sqrt(max(0.0, standard_error(found) ** 2 - items**2) * found.n)

    def enough(n: int) -> bool:
        return float(scipy.stats.t.ppf(0.975, n - 1)) * math.hypot(spread / math.sqrt(n), items) <= margin / 2

    low, high = 1, 2
    while not enough(high):
        low, high = high, 2 * high
        if high > MOST_SEEDS:
            return math.inf
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def standard_error(found: Interval) -> float:
    """Of a mean, from its 95% interval."""
    return (found.high - found.low) / 2 / float(scipy.stats.t.ppf(0.975, degrees_of(found)))


def _above(found: Interval, value: float, sign: float = 1) -> float:
    """The one-sided p-value of the hypothesis that the truth is not above a value, or for sign -1 not below it."""
    distance = sign * (found.estimate - value)
    side = found.estimate - found.low if sign > 0 else found.high - found.estimate
    if distance < 0:  # the end toward the value is the other one
        side = found.high - found.low - side
    error = side / float(scipy.stats.t.ppf(0.975, degrees_of(found)))
    if error == 0:
        return float(distance <= 0)
    return float(scipy.stats.t.sf(distance / error, degrees_of(found)))


def _judgeable(found: Interval) -> bool:
    return all(map(math.isfinite, (found.low, found.high))) and found.n > 1


def degrees_of(found: Interval) -> float:
    """Of freedom of Student's t."""
    return found.n - 1 if found.degrees is None else found.degrees
