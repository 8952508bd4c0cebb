"""Fits of the rate law: built-in exponents are found, a task left out is predicted by the others alone."""

import numpy as np
import pandas as pd
import pytest

from loralab.studies.law_fit import exponents, one_task, rms, share, without_task

SLOPES = {"r": -0.5, "λ": -0.4, "s": -0.6}
LEVELS = {("trec", "q,v"): 1.0, ("trec", "all"): 0.5, ("imdb", "q,v"): 2.0}


def arms(noise: float) -> pd.DataFrame:
    """Twenty arms for each task and targets, of a law with SLOPES and a level."""
    random, rows = np.random.default_rng(0), []
    for (task, targets), level in LEVELS.items():
        for rank, ratio, s in 2.0 ** random.integers(0, 5, (20, 3)):
            exact = level * 1e-2 * rank ** SLOPES["r"] * ratio ** SLOPES["λ"] * s ** SLOPES["s"]
            tuned = exact * 2 ** (noise * random.standard_normal())
            rows.append({"task": task, "targets": targets, "rank": rank, "ratio": ratio, "s": s, "tuned": tuned})
    return pd.DataFrame(rows).assign(train_rows=np.nan, steps=100, batch_size=32, init="A")


def test_the_exponents_are_found_within_tasks_and_targets() -> None:
    found = exponents(arms(noise=0.15))
    for name, truth in SLOPES.items():
        assert found[name].low < truth < found[name].high
        assert found[name].high - found[name].low < 0.1
        assert found[name].p < 1e-6


def test_a_law_fitted_on_one_task_misses_another_by_its_level() -> None:
    found = one_task(arms(noise=0.0), "trec", {})
    assert len(found) == 20
    assert found.to_numpy() == pytest.approx(1.0)  # IMDb's level is twice TREC's for q and v
    assert one_task(arms(noise=0.0), "imdb", {"trec": "imdb"}).empty


def test_a_task_left_out_is_less_the_mean_of_the_others_with_its_targets() -> None:
    level = {"trec": 1.0, "fine": 2.0, "imdb": 4.0, "sms": 7.0}
    rows = [(task, "q,v", at) for task, at in level.items()] + [
        ("trec", "q", 9.0),
        ("imdb", "all", 1),
        ("sms", "all", 3),
    ]
    table = pd.DataFrame(rows, columns=["task", "targets", "doublings"]).assign(init="A")
    found = without_task(table, {"fine": "trec"})
    trec = 1.5
    assert found[[0, 1]].tolist() == [1.0 - 5.5, 2.0 - 5.5]
    assert found[2] == pytest.approx(4.0 - (trec + 7.0) / 2)
    assert np.isnan(found[4])
    assert found[[5, 6]].tolist() == [-2.0, 2.0]
    other = without_task(table.assign(init=["A", *"BBBBBB"]), {})
    assert np.isnan(other[0])  # of two inits, each has its own c


def test_the_share_within_2x_counts_both_ends_and_has_wilsons_interval() -> None:
    found = share(pd.Series([0.0, 1.0, -1.0, 1.01, np.nan]))
    assert (found.estimate, found.n) == (0.75, 4)
    assert found.low < 0.75 < found.high
    assert share(pd.Series([np.nan])).n == 0
    assert share(pd.Series([0.0] * 80)).p < 0.01 < share(pd.Series([0.0] * 8)).p


def test_rms_leaves_out_what_is_not_known() -> None:
    assert rms(pd.Series([3.0, -4.0, np.nan])) == pytest.approx(np.sqrt(12.5))
