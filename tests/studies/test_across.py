"""One question of several studies: the weighted mean, which settings count, and how often its interval errs."""

import math

import numpy as np
import pytest

from loralab.studies.across import across, weighted_mean
from loralab.studies.questions import Claim, Question
from loralab.studies.stats import Interval, interval_of, mean_interval


def asked(study: str, setting: str, *claims: Claim, source: str = "LoRA+") -> Question:
    return Question(f"is it better ({setting})?", source, "points", claims, study, 0.005)


def claim(arm: str, estimate: float, error: float, n: int = 20) -> Claim:
    found = interval_of(estimate, error, n - 1, n)
    return Claim(arm, found, "1 to 2%", 0.01, loss=found)


def test_settings_are_weighed_by_their_precision() -> None:
    found = weighted_mean([interval_of(1.0, 0.1, 1e9, 40), interval_of(4.0, 0.2, 1e9, 5)])
    assert found.estimate == pytest.approx(1.6) and found.n == 45
    assert found.high - found.estimate == pytest.approx(1.96 / math.sqrt(125), rel=1e-3)
    few = weighted_mean([interval_of(1.0, 0.1, 4, 5), interval_of(4.0, 0.2, 1e9, 5)])
    assert few.estimate == pytest.approx((1 / 0.02 + 4 / 0.04) / (1 / 0.02 + 1 / 0.04)), "few seeds weigh less"
    assert few.high - few.low > found.high - found.low


def test_one_question_of_several_studies_is_pooled_and_names_them() -> None:
    other = asked("third", "IMDb", claim("16", 0.0, 0.001), source="another paper")
    one, left = across(
        [
            asked("first", "TREC", claim("16", 0.001, 0.001), claim("4", 0.002, 0.001)),
            other,
            asked("second", "IMDb", claim("16", 0.003, 0.001), claim("64", 0.1, 0.001)),
        ]
    )
    assert left == other and (one.text, one.study) == ("is it better?", "first, second")
    (pooled,) = one.claims  # what both judge
    assert pooled.found.estimate == pytest.approx(0.002) and pooled.found.n == 40 and pooled.loss is not None
    assert pooled.pooled is not None and [*pooled.pooled.settings] == [("TREC",), ("IMDb",)]
    assert one.verdicts == ["equivalent"]


def test_of_studies_in_one_setting_the_one_with_the_most_seeds_counts() -> None:
    few, many = (asked(name, "TREC", claim("16", 0.0, 0.001, n)) for name, n in (("few", 5), ("many", 20)))
    assert across([few, many]) == [many] == across([many, few])


def test_studies_without_a_claim_in_common_stand_as_they_are() -> None:
    unknown = Claim("16", Interval(math.nan, math.nan, math.nan, 4, math.nan), "1 to 2%", 0.01)
    for last in (claim("4", 0.0, 0.1), claim("16", 0.0, 0.1, n=3), unknown):
        both = [asked("first", "TREC", claim("16", 0.0, 0.001)), asked("second", "IMDb", last)]
        assert across(both) == both


@pytest.mark.parametrize("spread", [(0.004, 0.011, 0.2, 0.06), (0.01, 0.01, 0.01, 0.01)])
def test_without_an_effect_the_mean_errs_in_at_most_a_twentieth(spread: tuple[float, ...]) -> None:
    draw, wrong = np.random.default_rng(0), 0
    for _ in range(2000):
        settings = zip((20, 5, 5, 5), spread, strict=True)
        found = weighted_mean([mean_interval(draw.normal(0, s, n)) for n, s in settings])
        wrong += not found.low <= 0 <= found.high
    assert 0.025 < wrong / 2000 < 0.06
