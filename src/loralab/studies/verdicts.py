"""One of four verdicts on a difference between arms, and the number of seeds that would tell it.

A paper's claim is a number, and a margin named beforehand says which differences count as none. The verdict uses both;
a test against 0 alone (loralab.studies.claims) cannot tell an absent effect from one that was not measured well enough.
"""

import math
from typing import TYPE_CHECKING, Any, Literal

import scipy  # imported on first use: scipy.stats takes half a second to import

from loralab.studies.arms import comparison_row, paired_difference
from loralab.studies.stats import Interval

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ACCURACY_MARGIN", "CONTRADICTED", "EQUIVALENT", "HELD", "UNKNOWN", "judged_row", "seeds_needed", "verdict"]

Verdict = Literal["held", "contradicted in size", "equivalent", "not identified"]
HELD: Verdict = "held"
CONTRADICTED: Verdict = "contradicted in size"
EQUIVALENT: Verdict = "equivalent"
UNKNOWN: Verdict = "not identified"

ACCURACY_MARGIN = 0.005
"""Half a point: a smaller difference in accuracy counts as none."""
MOST_SEEDS = 100_000


def verdict(found: Interval, *, paper: float, margin: float) -> Verdict:
    """The verdict on a gain that a paper says is `paper`; `found` has Student's 95% interval over n seeds.

    The first that is true of: equivalent, if the 90% interval lies within ± margin (two one-sided tests at 5%,
    Schuirmann 1987); contradicted in size, if the 95% interval ends before the paper's number; held, if it lies beyond
    0; not identified. A negative `paper` claims a fall, as of a loss.
    """
    if not all(map(math.isfinite, (found.low, found.high))) or found.n < 2:
        return UNKNOWN
    narrow = _standard_error(found) * float(scipy.stats.t.ppf(0.95, found.n - 1))
    if abs(found.estimate) + narrow < margin:
        return EQUIVALENT
    sign = math.copysign(1.0, paper)
    low, high = sorted((sign * found.low, sign * found.high))
    if high < abs(paper):
        return CONTRADICTED
    return HELD if low > 0 else UNKNOWN


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


def seeds_needed(found: Interval, margin: float) -> float:
    """The fewest seeds whose 95% interval is at most margin / 2 to each side, at the spread between the n seeds found.

    At least 2; inf beyond MOST_SEEDS; NaN without an interval.
    """
    if not all(map(math.isfinite, (found.low, found.high))) or found.n < 2:
        return math.nan
    spread = _standard_error(found) * math.sqrt(found.n)

    def enough(n: int) -> bool:
        return float(scipy.stats.t.ppf(0.975, n - 1)) * spread / math.sqrt(n) <= margin / 2

    low, high = 1, 2
    while not enough(high):
        low, high = high, 2 * high
        if high > MOST_SEEDS:
            return math.inf
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _standard_error(found: Interval) -> float:
    """Of a mean, from its 95% interval."""
    return (found.high - found.low) / 2 / float(scipy.stats.t.ppf(0.975, found.n - 1))
