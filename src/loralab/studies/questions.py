"""A question that a study puts to a paper's number: the pooled verdict of each arm, then the settings one by one."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loralab.studies import captions
from loralab.studies.pooled import Pooled
from loralab.studies.stats import Interval
from loralab.studies.verdicts import power, seeds_needed, verdicts

__all__ = ["Question", "block", "blocks"]


@dataclass(frozen=True)
class Question:
    """Arms that are compared with one base in accuracy, and what the paper says that they gain.

    text: the question; source: paper and section; paper: its number, as text; number: the smallest gain that it claims;
    gains: by arm, in accuracy; losses: by arm, the pooled difference in test loss. study and margin (the difference
    that counts as none, `hydra.sweeper.study.margin`) are filled in by loralab.studies.committed.
    """

    text: str
    source: str
    paper: str
    number: float
    gains: Mapping[str, Pooled]
    losses: Mapping[str, Interval]
    study: str = ""
    margin: float = math.nan


def blocks(questions: Sequence[Question]) -> list[str]:
    """The lines of analysis/claims.md about the questions; none without one."""
    if not questions:
        return []
    head = [
        "## Questions",
        "",
        "A gain is the mean over the settings, in points of accuracy. The model is mixed: settings fixed, seeds and",
        "test items random, one error variance for all arms. `all such settings` is Hartung and Knapp's interval of",
        "the mean over a population of settings. Intervals are 95%, unadjusted; verdicts are adjusted over the arms",
        "(Holm): `held`, `contradicted in size` (the paper's number is excluded), `equivalent` (within the margin),",
        "`not identified`.",
        "Power: of a test of 0 for the paper's number. Seeds: in each setting, for a half-width of half the margin.",
        "",
    ]
    return [*head, *(line for question in questions for line in block(question))]


def block(question: Question) -> list[str]:
    """One question: a table of its arms with their verdicts, and one of its settings."""
    effects = [gain.effect for gain in question.gains.values()]
    judged = verdicts(effects, papers=[question.number] * len(effects), margin=question.margin)
    lines = [
        f"### [{question.study}](figures/{question.study}.png): {question.text}",
        "",
        f"{question.source}: {question.paper}, tested as {100 * question.number:g} or more. Margin: "
        f"{100 * question.margin:g} points.",
        "",
        "| arm | gain | all such settings | test loss, nats | power | seeds | verdict |",
        "|---|---|---|---|---|---|---|",
    ]
    for (arm, gain), answer in zip(question.gains.items(), judged, strict=True):
        needed = seeds_needed(gain.effect, question.margin, items=gain.items) / max(1, len(gain.settings))
        seeds = f"{math.ceil(needed)}" if math.isfinite(needed) else "not known"
        cells = [arm, f"{_points(gain.effect)}, n = {gain.effect.n}", _points(gain.population)]
        cells += [_nats(question.losses[arm]), f"{power(gain.effect, question.number):.2f}", seeds, answer]
        lines.append(f"| {' | '.join(cells)} |")
    settings = list(dict.fromkeys(name for gain in question.gains.values() for name in gain.settings))
    lines += ["", f"| setting | {' | '.join(question.gains)} |", f"|---|{'---|' * len(question.gains)}"]
    for name in settings:
        found = [gain.settings.get(name) for gain in question.gains.values()]
        shown = ["" if each is None else _points(each) for each in found]
        lines.append(
            f"| {', '.join(captions.NAMES.get(str(part), str(part)) for part in name)} | {' | '.join(shown)} |"
        )
    return [*lines, ""]


def _points(found: Interval) -> str:
    if math.isnan(found.low):
        return "not identified"
    return f"{100 * found.estimate:+.2f} [{100 * found.low:.2f}, {100 * found.high:.2f}]"


def _nats(found: Interval) -> str:
    if math.isnan(found.low):
        return "not identified"
    return f"{found.estimate:+.4f} [{found.low:.4f}, {found.high:.4f}]"
