"""One of four verdicts on a difference between arms, and the number of seeds that would tell it.

A paper's claim is a number, and a margin named beforehand says which differences count as none. The verdict uses both;
a test against 0 alone (loralab.studies.claims) cannot tell an absent effect from one that was not measured well enough.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import scipy  # imported on first use: scipy.stats takes half a second to import

from loralab.studies.arms import comparison_row, paired_difference
from loralab.studies.stats import Interval, holm

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "ACCURACY_MARGIN",
    "CONTRADICTED",
    "EQUIVALENT",
    "HELD",
    "UNKNOWN",
    "judged_row",
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

ACCURACY_MARGIN = 0.005
"""Half a point: a smaller difference in accuracy counts as none."""
LEVEL = 0.05
MOST_SEEDS = 100_000


def verdict(found: Interval, *, paper: float, margin: float) -> Verdict:
    """The verdict on the only claim of a question: `verdicts` of one."""
    return verdicts([found], papers=[paper], margin=margin)[0]


def verdicts(found: Sequence[Interval], *, papers: Sequence[float], margin: float) -> list[Verdict]:
    """The verdicts on the claims of one question: gains that a paper says are `papers`, found with Student's intervals.

    The first that is true of: equivalent, if the 90% interval lies within ± margin (two one-sided tests at 5%,
    Schuirmann 1987); contradicted in size, if the 95% interval ends before the paper's number; held, if it lies beyond
    0; not identified. The levels are Holm's over the question's claims, for each of the three in itself. A negative
    number of a paper claims a fall, as of a loss.
    """
    tests = np.full((3, len(found)), np.nan)
    for place, (each, paper) in enumerate(zip(found, papers, strict=True)):
        if not _judgeable(each):
            continue
        sign, at = math.copysign(1.0, paper), each.estimate
        tests[0, place] = max(_tail(margin + at, each), _tail(margin - at, each))
        tests[1, place] = min(1.0, 2 * _tail(abs(paper) - sign * at, each))
        tests[2, place] = min(1.0, 2 * _tail(sign * at, each))
    small = np.array([holm(p) for p in tests]) < LEVEL
    return [
        EQUIVALENT if same else CONTRADICTED if less else HELD if gained else UNKNOWN for same, less, gained in small.T
    ]


def judged_row(own: "pd.DataFrame", base: "pd.DataFrame", *, paper: float = ACCURACY_MARGIN) -> dict[str, Any]:
    """`comparison_row` of an arm with the difference in test loss, the verdict on its gain in accuracy, and the seeds.

    paper: the gain that is claimed; a paper without a number claims the margin. seeds: `seeds_needed`.
    """
    gain, loss = (paired_difference(own, base, f"test/{metric}") for metric in ("accuracy", "loss"))
    judged = {"verdict": "", "seeds": ""}
    if own is not base:
        number = f"{seeds_needed(gain, ACCURACY_MARGIN):g}"
        judged = {"verdict": verdict(gain, paper=paper, margin=ACCURACY_MARGIN), "seeds": number}
    return {
        **comparison_row(own, base),
        "difference in loss": f"{loss.estimate:+.3f} [{loss.low:.3f}, {loss.high:.3f}]",
        **judged,
    }


def power(found: Interval, gain: float) -> float:
    """The probability that a test of 0 at 5% finds a true gain of this size, at the standard error found.

    From the noncentral t distribution; NaN without an interval.
    """
    if not _judgeable(found):
        return math.nan
    error, degrees = standard_error(found), _degrees(found)
    if error == 0:
        return float(gain != 0)
    edge = float(scipy.stats.t.ppf(1 - LEVEL / 2, degrees))
    beyond = scipy.stats.nct.sf(edge, degrees, abs(gain) / error) + scipy.stats.nct.cdf(
        -edge, degrees, abs(gain) / error
    )
    return float(beyond)


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
    return (found.high - found.low) / 2 / float(scipy.stats.t.ppf(0.975, _degrees(found)))


def _tail(distance: float, found: Interval) -> float:
    """The one-sided p-value of an estimate that lies this far on the side of the alternative."""
    error = standard_error(found)
    if error == 0:
        return float(distance <= 0)
    return float(scipy.stats.t.sf(distance / error, _degrees(found)))


def _judgeable(found: Interval) -> bool:
    return all(map(math.isfinite, (found.low, found.high))) and found.n > 1


def _degrees(found: Interval) -> float:
    return found.n - 1 if found.degrees is None else found.degrees
