"""The pages of the claims: analysis/claims.md, and the tables of docs/findings.md."""

import math
import re
from collections.abc import Iterable, Sequence

from loralab.studies import captions
from loralab.studies.across import across
from loralab.studies.questions import Claim, Question, amount, value_text
from loralab.studies.stats import Interval
from loralab.studies.verdicts import UNKNOWN

__all__ = ["embedded", "lines", "markdown"]

HEAD = """\
# Claims

Made by `loralab claims` from analysis/results/*.csv; do not edit.

Each question of a study is put to one paper. Its claims are judged together, each against the paper's own number and a
margin that the sweep's file names, the difference that counts as none. A claim without a number claims the margin.

| verdict | of a gain of the number or more (≥, or ≤ for a fall) | of an exact number (=) |
|---|---|---|
| held | the 95% interval lies beyond 0 (1 for a ratio) | the 90% interval lies within the margin of the number |
| contradicted in size | the 95% interval ends before the number | the 95% interval excludes the number |
| equivalent | the 90% interval lies within the margin of 0 | |
| not identified | else | else |

Where several studies put one question to one paper, the first table has the mean over their settings, each weighed by
its precision, and of studies with the same setting the one with the most seeds.
An equivalent gain may contradict its number too. Levels are adjusted over the question's claims (Holm); the printed
95% intervals are not. Differences in accuracy and loss are means over the settings that stand below them. The model is
mixed: settings fixed, seeds and test items random, one error variance for all arms. `all such settings` is Hartung and
Knapp's interval of the mean over a population of settings. Power: of a test of no effect for the number, or for a
distance of the margin from an exact one. Needed: the n, or the seeds in each setting, for a half-width of half the
margin; `more items`: no number of seeds gives that on this test set.
Each number holds for its own backbone, task and number of steps.
"""


def markdown(questions: Sequence[Question]) -> str:
    """analysis/claims.md: the primary claim of each question, then those of several studies, then all one by one."""
    primary = across(questions)
    joined = [each for each in primary if each not in questions]
    page = [
        HEAD,
        "## Primary claims",
        "",
        f"One for each question and paper; {_unknown(primary)} of {len(primary)} are {UNKNOWN} (study by study, "
        f"{_unknown(questions)} of {len(questions)}).",
        "",
        *_table(
            ("study", "paper", "question", "claim", "the paper's number", "ours", "verdict"),
            [(_links(each), each.source, each.text, *_row(each, 0)) for each in primary],
        ),
        *(line for question in [*joined, *questions] for line in ["", *_block(question)]),
    ]
    return "\n".join([*page, ""])


def _unknown(questions: Sequence[Question]) -> int:
    return sum(question.verdicts[0] == UNKNOWN for question in questions)


def embedded(text: str, questions: Sequence[Question]) -> str:
    """A page (docs/findings.md), each table between `<!-- claims: STUDY, ... -->` and `<!-- end -->` regenerated."""

    def block(found: re.Match[str]) -> str:
        asked = [each for name in found[1].split(", ") for each in questions if each.study == name]
        rows = [
            (f"{each.text} ({each.source})" if place == 0 else "", *_row(each, place))
            for each in asked
            for place in range(len(each.claims))
        ]
        head = ("question", "claim", "the paper's number", "ours", "verdict")
        return "\n".join([f"<!-- claims: {found[1]} -->", *_table(head, rows), "<!-- end -->"])

    return re.sub(r"<!-- claims: (.+) -->\n(?s:.*?)<!-- end -->", block, text)


def lines(question: Question) -> list[str]:
    """For the terminal: the question, then its claims, each after its verdict."""
    rows = [_row(question, place) for place in range(len(question.claims))]
    return [f"{question.study}: {question.text}", *(f"  {row[-1]:20}  {row[0]}: {row[2]}" for row in rows)]


def _row(question: Question, place: int) -> tuple[str, str, str, str]:
    claim = question.claims[place]
    ours = value_text(claim.found, question.unit)
    return claim.arm, claim.paper, ours, question.verdicts[place]


def _block(question: Question) -> list[str]:
    """A question: a table of its claims, and one of their settings where there are several."""
    unit, claims = question.unit, question.claims
    several = any(claim.pooled and len(claim.pooled.settings) > 1 for claim in claims)
    losses = any(claim.loss for claim in claims)
    rows = []
    for place, claim in enumerate(claims):
        arm, paper, ours, verdict = _row(question, place)
        more = [_interval(claim.pooled.population if claim.pooled else None, unit)] if several else []
        more += [_interval(claim.loss, "nats")] if losses else []
        power, needed = question.power(claim), question.needed(claim)
        more.append(f"{power:.2f}" if power == power else "not known")
        more.append("more items" if math.isinf(needed) else f"{needed:g}" if needed == needed else "not known")
        rows.append([arm, paper, question.tested(claim), ours, *more, verdict])
    extra = ["all such settings"] * several + ["test loss, nats"] * losses
    return [
        f"## {_links(question)}: {question.text}",
        "",
        f"{question.source}. Margin: {amount(question.margin, unit)}.",
        "",
        *_table(("claim", "the paper's number", "tested", "ours", *extra, "power", "needed", "verdict"), rows),
        *(_settings(claims, unit) if several else []),
    ]


def _settings(claims: Sequence[Claim], unit: str) -> list[str]:
    pooled = {claim.arm: claim.pooled.settings for claim in claims if claim.pooled}
    names = dict.fromkeys(name for found in pooled.values() for name in found)
    rows = [(_named(name), *(_interval(found.get(name), unit) for found in pooled.values())) for name in names]
    return ["", *_table(("setting", *pooled), rows)]


def _named(setting: Iterable[object]) -> str:
    return ", ".join(captions.NAMES.get(str(part), str(part)) for part in setting)


def _interval(found: Interval | None, unit: str) -> str:
    return "" if found is None or math.isnan(found.low) else value_text(found, unit).partition(", n =")[0]


def _links(question: Question) -> str:
    return ", ".join(f"[{study}](figures/{study}.png)" for study in question.study.split(", "))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return [lines[0], f"|{'---|' * len(head)}", *lines[1:]]
