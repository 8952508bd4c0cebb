"""A claim is judged against its paper's number in its own unit, together with its question's other claims."""

import math
from typing import Any

import pandas as pd
import pytest

from loralab.studies.pooled import Pooled, pooled_gain
from loralab.studies.questions import Claim, Question, gain, value_text
from loralab.studies.stats import Interval, interval_of
from loralab.studies.verdicts import CONTRADICTED, EQUIVALENT, HELD, UNKNOWN, seeds_needed

NOTHING = Interval(math.nan, math.nan, math.nan, 4, math.nan)


def asked(*claims: Claim, unit: str = "points", margin: float = 0.005) -> Question:
    return Question("is it better?", "LoRA+, abstract", unit, claims, "ratio", margin)


def claim(estimate: float, error: float, **others: Any) -> Claim:
    return Claim("an arm", interval_of(estimate, error, 30, 20), **others)


def times(estimate: float, error: float, **others: Any) -> Claim:
    """A ratio, with the standard error of its logarithm."""
    log = interval_of(math.log(estimate), error, 30, 20)
    return Claim("an arm", Interval(estimate, math.exp(log.low), math.exp(log.high), 20, log.p, 30), **others)


def test_a_claim_without_a_number_claims_the_margin() -> None:
    for estimate, error, verdict in ((0.02, 0.002, HELD), (-0.02, 0.002, CONTRADICTED), (0.001, 0.001, EQUIVALENT)):
        question = asked(claim(estimate, error))
        assert question.verdicts == [verdict] == asked(claim(estimate, error, number=0.005)).verdicts
    assert question.tested(question.claims[0]) == "≥ 0.5 points (the margin)"


def test_ratios_are_judged_in_logarithms() -> None:
    for estimate, verdict in ((2.0, HELD), (1.5, CONTRADICTED), (1.0, EQUIVALENT), (0.5, CONTRADICTED)):
        assert asked(times(estimate, 0.02, number=2.0), unit="x", margin=1.1).verdicts == [verdict]
    less = asked(times(0.5, 0.02, number=0.5), unit="x", margin=1.1)
    assert less.verdicts == [HELD] and less.tested(less.claims[0]) == "≤ 0.5x"
    unbounded = Claim("an arm", Interval(2.0, 0.0, 3.0, 5, math.nan))
    assert asked(unbounded, unit="x", margin=1.1).verdicts == [UNKNOWN]


def test_an_exact_claim_holds_where_the_value_is_within_the_margin_of_the_number() -> None:
    for estimate, error, verdict in ((-0.95, 0.02, HELD), (-0.5, 0.02, CONTRADICTED), (-1.6, 0.02, CONTRADICTED)):
        question = asked(claim(estimate, error, number=-1.0, exact=True), unit="", margin=0.25)
        assert question.verdicts == [verdict] and question.tested(question.claims[0]) == "= -1"
    assert asked(claim(-1.0, 0.3, number=-1.0, exact=True), unit="", margin=0.25).verdicts == [UNKNOWN]
    same = asked(times(1.01, 0.004, exact=True), unit="x", margin=1.02)
    assert same.verdicts == [HELD] and same.tested(same.claims[0]) == "= 1x", "without a number: no difference"


def test_the_claims_of_a_question_are_judged_together() -> None:
    weak = claim(0.012, 0.005, number=0.01)
    assert asked(weak).verdicts == [HELD] and asked(weak, weak, weak).verdicts == [UNKNOWN] * 3


def test_the_needed_seeds_of_a_pooled_effect_are_those_of_each_setting() -> None:
    effect = interval_of(0.012, 0.002, 36, 20)
    pooled = Pooled(effect, effect, 0.0, {("trec", "A"): effect, ("trec", "B"): effect})
    question = asked(Claim("an arm", effect, number=0.01, pooled=pooled), Claim("unknown", NOTHING))
    assert question.needed(question.claims[0]) == 26 == math.ceil(seeds_needed(effect, 0.005) / 2)
    assert question.power(question.claims[0]) > 0.99
    assert math.isnan(question.needed(question.claims[1])) and math.isnan(question.power(question.claims[1]))
    assert question.verdicts[1] == UNKNOWN


def test_a_gain_is_the_pooled_gain_with_the_loss_beside_it() -> None:
    rows = [
        {"task": task, "seed": seed, "lora.ratio": ratio, "test/accuracy": 0.8 + 0.01 * seed + 0.02 * (ratio > 1)}
        | {"test/loss": 0.5 - 0.1 * (ratio > 1) + 0.01 * ((seed * ratio) % 3)}
        for task in ("trec", "sms")
        for seed in range(5)
        for ratio in (1, 16)
    ]
    runs = pd.DataFrame(rows)
    runs["test/accuracy"] += [0.001 * (at % 5) for at in range(len(runs))]
    pair: dict[str, Any] = {"arm": "lora.ratio", "by": ["task"]}
    found = gain(runs, 16, 1, text="λ = 16", paper="1 to 2%", number=0.01, **pair)
    accuracy, loss = (pooled_gain(runs, 16, 1, metric=f"test/{metric}", **pair) for metric in ("accuracy", "loss"))
    assert found == Claim("λ = 16", accuracy.effect, "1 to 2%", 0.01, pooled=accuracy, loss=loss.effect)
    assert [*accuracy.settings] == [("sms",), ("trec",)]


@pytest.mark.parametrize(
    ("unit", "text"),
    [
        ("points", "+0.53 points [-0.20, 1.26], n = 5"),
        ("x", "0.01x [-0.00, 0.01], n = 5"),
        ("nats", "+0.0053 nats [-0.0020, 0.0126], n = 5"),
        ("doublings", "0.01 doublings [-0.00, 0.01], n = 5"),
        ("", "0.01 [-0.00, 0.01], n = 5"),
    ],
)
def test_a_number_is_shown_in_its_unit_with_its_interval_and_n(unit: str, text: str) -> None:
    assert value_text(Interval(0.0053, -0.0020, 0.0126, 5, 0.1), unit) == text


@pytest.mark.parametrize(
    ("low", "high", "unit", "text"),
    [
        (-math.inf, math.inf, "doublings", "not identified, n = 5"),
        (0.5, math.inf, "x", "not identified, n = 5"),
        (0.0, 3.0, "x", "not identified, n = 5"),
        (math.nan, math.nan, "x", "2.00x (no interval), n = 5"),
    ],
)
def test_an_interval_that_lacks_an_end_is_not_identified(low: float, high: float, unit: str, text: str) -> None:
    assert value_text(Interval(2.0, low, high, 5, 0.1), unit) == text
    assert value_text(NOTHING, unit) == "not identified, n = 4"
