"""Laws of the committed results: optima inside their axes, equal trials for all arms, fresh seeds that are fresh."""

import pytest

from loralab.studies import figures, results
from loralab.sweeps.study import open_study
from tests.small_studies import MEASURED

COMMITTED = figures.names()
CONFIRMED = [name for name in COMMITTED if name not in MEASURED and "confirm" in set(results.load(name)["stage"])]


@pytest.mark.parametrize("name", [name for name in COMMITTED if hasattr(figures.module(name), "interior")])
def test_every_best_rate_is_inside_its_axes(name: str) -> None:
    table = figures.module(name).summary(results.load(name))
    assert len(table) and table["interior"].all(), table[~table["interior"]]


@pytest.mark.parametrize("name", CONFIRMED)
def test_arms_had_equal_trials_and_five_or_more_seeds_that_chose_nothing(name: str) -> None:
    frame = results.load(name)
    with open_study(name) as study:
        assert study.spec.confirm is not None
        arms = [key for key in study.spec.confirm.by if key in frame]
    stages = dict(list(frame.groupby("stage")))
    assert stages["grid"].groupby(arms, dropna=False).size().nunique() == 1
    for _, runs in stages["confirm"].groupby(arms, dropna=False):
        assert runs["seed"].nunique() == len(runs) >= 5
        assert not set(runs["seed"]) & set(stages["grid"]["seed"])
