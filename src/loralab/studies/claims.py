"""Claims of the papers against the results: for each claim a number with its interval, and one of three verdicts.

A study's analysis returns its claims (`claims(frame)`). The verdicts adjust for all claims together (Holm's method).
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from loralab.studies.questions import Question, blocks
from loralab.studies.stats import Interval, holm

__all__ = ["LEVEL", "VERDICTS", "Claim", "Judged", "embedded", "judge", "markdown", "p_text"]

LEVEL = 0.05
VERDICTS = ("held", "did not hold", "cannot tell at this scale")


@dataclass(frozen=True)
class Claim:
    """A sentence of a paper, with a number that tests it.

    source: paper and figure; text: the claim, in one setting (task, init); paper: the paper's number, as text; found:
    the measured value, whose p-value is against `threshold`. The claim held if it lies above the threshold, or below it
    if `below`. unit: the unit of found: "points" (accuracy, times 100), "x" (a ratio), "doublings" (log2 of a ratio),
    "nats" (loss, three decimals).
    """

    study: str
    source: str
    text: str
    paper: str
    found: Interval
    threshold: float
    unit: str = ""
    below: bool = False

    @property
    def ours(self) -> str:
        """`+0.53 points [-0.20, 1.26], n = 5`; `not identified` where the interval is the whole range of the unit."""
        f = self.found
        least = 0.0 if self.unit == "x" else -math.inf
        bounds = [None if f.low == least else f.low, None if math.isinf(f.high) else f.high]
        if bounds == [None, None]:
            return f"not identified, n = {f.n}"
        sign = "+" if self.unit == "points" else ""
        scale = 100 if self.unit == "points" else 1
        space = " " if self.unit and self.unit != "x" else ""
        digits = 3 if self.unit == "nats" else 2
        low, high = ("no bound" if end is None else f"{scale * end:.{digits}f}" for end in bounds)
        ends = f"[{low}, {high}]" if f.low == f.low else "(no interval)"
        return f"{scale * f.estimate:{sign}.{digits}f}{space}{self.unit} {ends}, n = {f.n}"


@dataclass(frozen=True)
class Judged:
    """A claim with its Holm-adjusted p-value (NaN: no test was possible) and its verdict."""

    claim: Claim
    p: float
    verdict: str


def judge(claims: Sequence[Claim]) -> list[Judged]:
    """Each claim with its verdict; `cannot tell` if the adjusted two-sided p-value is not below .05."""
    adjusted = holm([claim.found.p for claim in claims])
    return [Judged(claim, float(p), _verdict(claim, float(p))) for claim, p in zip(claims, adjusted, strict=True)]


def _verdict(claim: Claim, p: float) -> str:
    if not p < LEVEL:
        return VERDICTS[2]
    above = claim.found.estimate > claim.threshold
    return VERDICTS[0] if above != claim.below else VERDICTS[1]


def markdown(rows: Sequence[Judged], questions: Sequence[Question] = ()) -> str:
    """analysis/claims.md: the questions with their pooled verdicts, then the claims in single settings."""
    tested = sum(row.p == row.p for row in rows)
    head = [
        "# Claims",
        "",
        "Made by `loralab claims` from analysis/results/*.csv; do not edit.",
        "",
        *blocks(questions),
        "## Single settings",
        "",
        "A verdict is `held` or `did not hold`",
        f"where the two-sided test against the claim's threshold has p < {LEVEL:g} after Holm's adjustment over the",
        f"{tested} tests; `cannot tell at this scale` is no evidence against a claim. Intervals are 95%, unadjusted.",
        "Nothing here says more than its own backbone, task and number of steps.",
        "",
        "| study | paper | claim | the paper's number | ours | p (Holm) | verdict |",
        "|---|---|---|---|---|---|---|",
    ]
    body = []
    for row in rows:
        c = row.claim
        study = f"[{c.study}](figures/{c.study}.png)"
        body.append(f"| {study} | {c.source} | {c.text} | {c.paper} | {c.ours} | {p_text(row.p)} | {row.verdict} |")
    return "\n".join([*head, *body, ""])


def embedded(text: str, rows: Sequence[Judged]) -> str:
    """A page (docs/findings.md), each table between `<!-- claims: STUDY, ... -->` and `<!-- end -->` regenerated."""

    def block(found: re.Match[str]) -> str:
        shown = [row for name in found[1].split(", ") for row in rows if row.claim.study == name]
        lines = ["| claim | the paper's number | ours | verdict |", "|---|---|---|---|"]
        lines += [f"| {row.claim.text} | {row.claim.paper} | {row.claim.ours} | {row.verdict} |" for row in shown]
        return "\n".join([f"<!-- claims: {found[1]} -->", *lines, "<!-- end -->"])

    return re.sub(r"<!-- claims: (.+) -->\n(?s:.*?)<!-- end -->", block, text)


def p_text(p: float) -> str:
    """`.012`, `< .001`; NaN means that no test was possible."""
    return "not tested" if p != p else "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0")
