"""A verdict follows from the adjusted p and the side of the threshold; each claim is shown in one row."""

import math
import re
from typing import Any

import pytest

from loralab.studies import claims, committed, study_module
from loralab.studies.claims import Claim, embedded, judge, markdown, p_text
from loralab.studies.committed import ask_committed, judge_committed
from loralab.studies.stats import Interval, holm
from tests.small_runs import CONF

HELD, FELL, OPEN = claims.VERDICTS
ANALYSIS = CONF.parent / "analysis"
FIELDS: dict[str, Any] = {"study": "ratio", "source": "LoRA+, Fig 7", "text": "16 beats 1", "paper": "1 to 2%"}


def claim(estimate: float, p: float, threshold: float = 0.0, **others: Any) -> Claim:
    found = Interval(estimate, estimate - 0.1, estimate + 0.1, 5, p)
    return Claim(**(FIELDS | others), found=found, threshold=threshold)


@pytest.mark.parametrize(
    ("estimate", "p", "threshold", "below", "verdict"),
    [
        (0.5, 0.01, 0.0, False, HELD),
        (-0.5, 0.01, 0.0, False, FELL),
        (0.5, 0.01, 1.0, False, FELL),
        (0.5, 0.01, 1.0, True, HELD),
        (1.5, 0.01, 1.0, True, FELL),
        (0.5, 0.05, 0.0, False, OPEN),
        (0.5, 0.049, 0.0, False, HELD),
        (-9.0, 0.2, 0.0, False, OPEN),
        (0.5, math.nan, 0.0, False, OPEN),
        (math.nan, math.nan, 0.0, False, OPEN),
        (math.inf, 0.01, 1.0, False, HELD),
        (0.0, 0.01, 1.0, False, FELL),
    ],
)
def test_a_verdict_needs_a_p_below_5_percent_and_then_follows_the_side(
    estimate: float, p: float, threshold: float, below: bool, verdict: str
) -> None:
    assert [row.verdict for row in judge([claim(estimate, p, threshold, below=below)])] == [verdict]


def test_verdicts_are_told_over_all_rows_at_once() -> None:
    several = [claim(0.5, p) for p in (0.03, 0.001, math.nan, 0.028)]
    alone = [judge([each])[0].verdict for each in several]
    assert alone == [HELD, HELD, OPEN, HELD]
    together = judge(several)
    assert [row.verdict for row in together] == [OPEN, HELD, OPEN, OPEN]
    assert [row.p for row in together] == pytest.approx(holm([0.03, 0.001, math.nan, 0.028]), nan_ok=True)
    assert [row.claim for row in together] == several and judge([]) == []


@pytest.mark.parametrize(
    ("unit", "text"),
    [
        ("points", "+0.53 points [-0.20, 1.26], n = 5"),
        ("x", "0.01x [-0.00, 0.01], n = 5"),
        ("nats", "0.005 nats [-0.002, 0.013], n = 5"),
        ("doublings", "0.01 doublings [-0.00, 0.01], n = 5"),
        ("", "0.01 [-0.00, 0.01], n = 5"),
    ],
)
def test_a_number_is_told_in_its_unit_with_its_interval_and_n(unit: str, text: str) -> None:
    assert Claim(**FIELDS, found=Interval(0.0053, -0.0020, 0.0126, 5, 0.1), threshold=0.0, unit=unit).ours == text


@pytest.mark.parametrize(
    ("low", "high", "unit", "text"),
    [
        (-math.inf, math.inf, "doublings", "not identified, n = 5"),
        (0.0, math.inf, "x", "not identified, n = 5"),
        (0.5, math.inf, "x", "2.00x [0.50, no bound], n = 5"),
        (0.0, 3.0, "x", "2.00x [no bound, 3.00], n = 5"),
        (math.nan, math.nan, "x", "2.00x (no interval), n = 5"),
    ],
)
def test_an_interval_without_ends_is_not_identified(low: float, high: float, unit: str, text: str) -> None:
    assert Claim(**FIELDS, found=Interval(2.0, low, high, 5, 0.1), threshold=0.0, unit=unit).ours == text


@pytest.mark.parametrize(
    ("p", "text"), [(math.nan, "not tested"), (0.0004, "< .001"), (0.001, ".001"), (0.0495, ".050"), (1.0, "1.000")]
)
def test_a_p_is_told_in_three_digits(p: float, text: str) -> None:
    assert p_text(p) == text


def test_the_table_has_a_row_a_claim_with_all_that_it_rests_on() -> None:
    untested = claim(0.5, math.nan, study="first")
    rows = judge([claim(0.5, 0.001, unit="points"), claim(-0.5, 0.02, text="up"), untested])
    lines = markdown(rows).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + len(rows) and {line.count("|") for line in table} == {8}
    assert table[2] == (
        "| [ratio](figures/ratio.png) | LoRA+, Fig 7 | 16 beats 1 | 1 to 2% "
        "| +50.00 points [40.00, 60.00], n = 5 | .002 | held |"
    )
    assert table[3].endswith("| .020 | did not hold |") and table[4].endswith(
        "| not tested | cannot tell at this scale |"
    )
    assert table[4].startswith("| [first](figures/first.png) |")
    assert any("p < 0.05 after Holm's adjustment" in line for line in lines) and "2 tests;" in markdown(rows)
    assert markdown(rows).endswith("|\n")


def test_a_page_takes_the_rows_of_the_studies_that_it_names_and_the_rest_stays() -> None:
    rows = judge(
        [claim(0.5, 0.001, text="a"), claim(0.5, 0.9, text="b", study="first"), claim(0.5, 0.9, study="other")]
    )
    page = (
        "# Top\n<!-- claims: first, ratio -->\nold\nrows\n<!-- end -->\nbottom\n<!-- claims: other -->\n<!-- end -->\n"
    )
    found = embedded(page, rows)
    assert found.splitlines() == [
        "# Top",
        "<!-- claims: first, ratio -->",
        "| claim | the paper's number | ours | verdict |",
        "|---|---|---|---|",
        "| b | 1 to 2% | 0.50 [0.40, 0.60], n = 5 | cannot tell at this scale |",
        "| a | 1 to 2% | 0.50 [0.40, 0.60], n = 5 | held |",
        "<!-- end -->",
        "bottom",
        "<!-- claims: other -->",
        "| claim | the paper's number | ours | verdict |",
        "|---|---|---|---|",
        "| 16 beats 1 | 1 to 2% | 0.50 [0.40, 0.60], n = 5 | cannot tell at this scale |",
        "<!-- end -->",
    ]
    assert embedded(found, rows) == found
    assert embedded("no place for it", rows) == "no place for it"


def test_the_committed_table_and_the_findings_page_say_what_the_csvs_say() -> None:
    page = ANALYSIS / "claims.md"
    if not page.is_file():
        pytest.skip("analysis/claims.md was not made yet")
    rows = judge_committed()[0]
    questions, failures = ask_committed()
    assert not failures and page.read_text(encoding="utf-8") == markdown(rows, questions), (
        "`loralab claims` makes it anew"
    )
    findings = (CONF.parent / "docs" / "findings.md").read_text(encoding="utf-8")
    assert embedded(findings, rows) == findings, "`loralab claims` makes it anew"
    shown = set(re.findall(r"\w+", " ".join(re.findall(r"<!-- claims: (.+) -->", findings))))
    assert shown == {row.claim.study for row in rows}, "each study with claims has its table on the page"
    assert {row.claim.study for row in rows} <= set(committed.names()) and study_module.ANALYSIS == ANALYSIS
