"""The gain over the default: paired differences on seeds that the search has not seen."""

import math
from pathlib import Path

import pytest
from scipy import stats

from loralab.tuning.confirm import FIRST_SEED, confirmed, paired
from loralab.tuning.trial import settings_of
from tests.tuning.sessions import RATES, ThreeRates, Trained, session


def test_the_interval_is_that_of_the_paired_differences() -> None:
    found, default = [0.41, 0.40, 0.44], [0.43, 0.43, 0.45]
    values = paired(found, default)
    expected = stats.ttest_rel(found, default).confidence_interval(0.95)
    assert values["difference"] == pytest.approx(-0.02)
    assert (values["low"], values["high"]) == pytest.approx((expected.low, expected.high))


def test_one_pair_has_a_difference_and_no_interval() -> None:
    values = paired([0.4], [0.5])
    assert values["difference"] == pytest.approx(-0.1) and values["low"] is None


def test_a_run_that_diverged_leaves_no_difference() -> None:
    values = paired([0.4, 0.4], [0.5, math.nan])
    assert values == {"recommended": 0.4, "default": None, "difference": None, "low": None, "high": None}


def test_both_are_trained_on_seeds_that_the_search_has_not_seen(tmp_path: Path) -> None:
    one, launch = session(tmp_path), Trained()
    taken = settings_of({"optim.lr": RATES[0], "seed": FIRST_SEED})
    launch([one.job(taken)], 0)
    one.begin(tmp_path / "seen.json")
    gain = confirmed(one, settings_of({"optim.lr": RATES[1]}), launch, seeds=1, first=0)
    assert gain["seeds"] == [FIRST_SEED + 1]
    assert set(gain["scores"]) == {"validation/loss", "validation/accuracy", "test/accuracy"}
    rates = [one.planned(settings).config.optim.lr for settings in (ThreeRates().at(RATES[1]), ())]
    trained = [text for job in launch.launches[1] for text in job if text.startswith("optim.lr=")]
    assert len(launch.launches[1]) == 2 and trained == [f"optim.lr={RATES[1]}"] and rates[0] != rates[1]
