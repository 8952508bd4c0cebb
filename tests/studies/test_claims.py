"""The pages of the claims: the primary ones first, then each question with its settings; tables of the findings."""

import math
import re

from loralab.studies import committed
from loralab.studies.claims import embedded, lines, markdown
from loralab.studies.committed import ask_committed
from loralab.studies.pooled import Pooled
from loralab.studies.questions import Claim, Question
from loralab.studies.stats import Interval, interval_of
from tests.small_runs import CONF

UNKNOWN = Interval(math.nan, math.nan, math.nan, 4, math.nan)


def pooled(arm: str, estimate: float, error: float) -> Claim:
    effect = interval_of(estimate, error, 36, 20)
    both = Pooled(effect, effect, 0.0, {("trec", "A"): effect, ("trec", "B"): effect})
    return Claim(arm, effect, "1 to 2%", 0.01, pooled=both, loss=effect)


GAIN = Question(
    "is it better?",
    "LoRA+, abstract",
    "points",
    [pooled("big", 0.012, 0.002), pooled("none", 0.0, 0.001), Claim("lost", UNKNOWN, "1 to 2%", 0.01)],
    "ratio",
    0.005,
)
POWER = Question("which power?", "in no paper", "", [Claim("lr_A", interval_of(-0.5, 1, 5, 6))], "width", 0.25)


def row(page: list[str], start: str) -> list[str]:
    found = next(line for line in page if line.startswith(f"| {start} |"))
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_each_claim_has_its_number_what_was_tested_power_needed_and_verdict() -> None:
    page = markdown([GAIN, POWER]).splitlines()
    assert "## [ratio](figures/ratio.png): is it better?" in page and "LoRA+, abstract. Margin: 0.5 points." in page
    start = page.index("LoRA+, abstract. Margin: 0.5 points.")
    big = row(page[start:], "big")
    assert big[:4] == ["big", "1 to 2%", "≥ 1 points", "+1.20 points [0.79, 1.61], n = 20"]
    assert big[4:6] == ["+1.20 points [0.79, 1.61]", "+0.0120 nats [0.0079, 0.0161]"]
    assert big[6:] == ["1.00", "26", "held"] and row(page[start:], "none")[-1] == "equivalent"
    assert row(page[start:], "lost")[3:] == [
        "not identified, n = 4",
        "",
        "",
        "not known",
        "not known",
        "not identified",
    ]
    assert row(page, "lr_A")[1:4] == ["no number", "≥ 0.25 (the margin)", "-0.50 [-3.07, 2.07], n = 6"]
    assert row(page, "lr_A")[-1] == "not identified" and "in no paper. Margin: 0.25." in page


def test_the_settings_stand_below_with_a_column_for_each_pooled_claim() -> None:
    page = markdown([GAIN, POWER]).splitlines()
    assert [line for line in page if line.startswith("| setting |")] == ["| setting | big | none |"]
    assert row(page, "TREC, B")[1:] == ["+1.20 points [0.79, 1.61]", "+0.00 points [-0.20, 0.20]"]


def test_the_primary_claims_come_first_and_those_not_identified_are_counted() -> None:
    page = markdown([GAIN, POWER])
    assert "One for each question and paper; 1 of 2 are not identified (study by study, 1 of 2)." in page
    assert page.index("## Primary claims") < page.index("## [ratio]") < page.index("## [width]")
    primary = [line for line in page.splitlines() if line.startswith("| [")]
    assert [line.split("|")[4].strip() for line in primary] == ["big", "lr_A"]
    assert primary[0].endswith("| 1 to 2% | +1.20 points [0.79, 1.61], n = 20 | held |")


def test_the_terminal_gets_a_question_and_its_verdicts() -> None:
    first, big, *_ = lines(GAIN)
    assert first == "ratio: is it better?" and big.split("  ")[1:] == [
        "held",
        *[""] * 8,
        "big: +1.20 points [0.79, 1.61], n = 20",
    ]


def test_a_page_takes_the_questions_of_the_studies_that_it_names_and_the_rest_stays() -> None:
    page = "# Top\n<!-- claims: width, ratio -->\nold\n<!-- end -->\nbottom\n<!-- claims: other -->\n<!-- end -->\n"
    found = embedded(page, [GAIN, POWER])
    assert found.splitlines() == [
        "# Top",
        "<!-- claims: width, ratio -->",
        "| question | claim | the paper's number | ours | verdict |",
        "|---|---|---|---|---|",
        "| which power? (in no paper) | lr_A | no number | -0.50 [-3.07, 2.07], n = 6 | not identified |",
        "| is it better? (LoRA+, abstract) | big | 1 to 2% | +1.20 points [0.79, 1.61], n = 20 | held |",
        "|  | none | 1 to 2% | +0.00 points [-0.20, 0.20], n = 20 | equivalent |",
        "|  | lost | 1 to 2% | not identified, n = 4 | not identified |",
        "<!-- end -->",
        "bottom",
        "<!-- claims: other -->",
        "| question | claim | the paper's number | ours | verdict |",
        "|---|---|---|---|---|",
        "<!-- end -->",
    ]
    assert embedded(found, [GAIN, POWER]) == found and embedded("no place for it", [GAIN]) == "no place for it"


def test_the_committed_table_and_the_findings_page_say_what_the_csvs_say() -> None:
    questions, failures = ask_committed()
    page = (CONF.parent / "analysis" / "claims.md").read_text(encoding="utf-8")
    assert not failures and page == markdown(questions), "`loralab claims` makes it anew"
    findings = (CONF.parent / "docs" / "findings.md").read_text(encoding="utf-8")
    assert embedded(findings, questions) == findings, "`loralab claims` makes it anew"
    shown = set(re.findall(r"\w+", " ".join(re.findall(r"<!-- claims: (.+) -->", findings))))
    asking = {question.study for question in questions}
    assert shown == asking, "each study with claims has its table on the page"
    assert asking <= set(committed.names())
