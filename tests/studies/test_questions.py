"""A question's arms are judged together against the paper's number, and each setting stands below them."""

import math
from pathlib import Path

import pytest

from loralab.studies import committed
from loralab.studies.claims import markdown
from loralab.studies.pooled import Pooled
from loralab.studies.questions import Question, block, blocks
from loralab.studies.stats import Interval, interval_of
from tests.small_studies import NAME, checkout

UNKNOWN = Interval(math.nan, math.nan, math.nan, 4, math.nan)


def pooled(estimate: float, error: float) -> Pooled:
    effect = interval_of(estimate, error, 36, 20)
    return Pooled(effect, effect, 0.0, {("trec", "A"): effect, ("trec", "B"): effect})


def question(**gains: Pooled) -> Question:
    losses = {arm: gain.effect for arm, gain in gains.items()}
    return Question("is it better?", "LoRA+, abstract", "1 to 2%", 0.01, gains, losses, "ratio", 0.005)


def row(lines: list[str], start: str) -> list[str]:
    found = next(line for line in lines if line.startswith(f"| {start} |"))
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_each_arm_has_its_pooled_gain_power_seeds_and_verdict() -> None:
    unknown = Pooled(UNKNOWN, UNKNOWN, 0.0, {("sms", "A"): UNKNOWN})
    lines = block(question(big=pooled(0.012, 0.002), none=pooled(0.0, 0.001), lost=unknown))
    assert lines[0] == "### [ratio](figures/ratio.png): is it better?" and "Margin: 0.5 points." in lines[2]
    big = row(lines, "big")
    assert big[1:4] == ["+1.20 [0.79, 1.61], n = 20", "+1.20 [0.79, 1.61]", "+0.0120 [0.0079, 0.0161]"]
    assert big[4:] == ["1.00", "26", "held"]  # 52 pairs in two settings: 2.01 * .002 * sqrt(20 / 52) = .0025
    assert row(lines, "none")[6] == "equivalent"
    assert row(lines, "lost")[1:] == ["not identified, n = 4"] + ["not identified"] * 2 + ["nan", "not known"] + [
        "not identified"
    ]


def test_the_settings_stand_below_with_a_column_for_each_arm() -> None:
    lines = block(question(big=pooled(0.012, 0.002), none=pooled(0.0, 0.001)))
    assert "| setting | big | none |" in lines
    assert row(lines, "TREC, B")[1:] == ["+1.20 [0.79, 1.61]", "+0.00 [-0.20, 0.20]"]


def test_the_questions_come_first_on_the_page() -> None:
    page = markdown([], [question(big=pooled(0.012, 0.002))])
    assert page.index("## Questions") < page.index("is it better?") < page.index("## Single settings")
    assert "## Questions" not in markdown([]) and blocks([]) == []


ANALYSIS = """
from loralab.studies.questions import Question
def draw(frame): ...
def questions(frame):
    return [Question("is it better?", "LoRA+", "1%", 0.01, {}, {})]
"""


def test_a_study_that_asks_names_its_margin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = checkout(tmp_path / "checkout", monkeypatch)
    (root / "analysis").mkdir(exist_ok=True)
    (root / "analysis" / f"{NAME}.py").write_text(ANALYSIS)
    monkeypatch.setattr(committed, "names", lambda: [NAME])
    monkeypatch.setattr(committed, "load_results", lambda name: None)
    asked, failures = committed.ask_committed()
    assert asked == [] and "hydra.sweeper.study.margin: got none" in failures[NAME]
