"""The committed results: optima are inside their axes, arms have equal trials, fresh seeds are not selection seeds."""

import pytest

from loralab.studies import committed, results
from loralab.studies.report_runs import varying
from loralab.studies.report_table import traced_by
from loralab.sweeps.study import open_study
from tests.analysis.frames import module
from tests.small_studies import MEASURED

COMMITTED = committed.names()
TRAINED = [name for name in COMMITTED if name not in MEASURED]
CONFIRMED = [name for name in TRAINED if "confirm" in set(results.load_results(name)["stage"])]


@pytest.mark.parametrize("name", [name for name in COMMITTED if hasattr(module(name), "interior")])
def test_every_best_rate_is_inside_its_axes(name: str) -> None:
    table = module(name).summary(results.load_results(name))
    assert len(table) and table["interior"].all(), table[~table["interior"]]


@pytest.mark.parametrize("name", CONFIRMED)
def test_arms_had_equal_trials_and_five_or_more_seeds_that_chose_nothing(name: str) -> None:
    frame = results.load_results(name)
    with open_study(name) as study:
        assert study.spec.confirm is not None
        arms = [key for key in study.spec.confirm.by if key in frame]
    stages = dict(list(frame.groupby("stage")))
    assert stages["grid"].groupby(arms, dropna=False).size().nunique() == 1
    for _, runs in stages["confirm"].groupby(arms, dropna=False):
        assert runs["seed"].nunique() == len(runs) >= 5
        assert not set(runs["seed"]) & set(stages["grid"]["seed"])


@pytest.mark.parametrize("name", [name for name in TRAINED if hasattr(module(name), "row_keys")])
def test_each_row_that_the_study_names_itself_leads_to_its_runs(name: str) -> None:
    frame, study = results.load_results(name), module(name)
    table = traced_by(study.summary(frame), varying(frame), study.row_keys(frame.drop_duplicates("hash")))
    pooled = [row for row, trace in zip(table.rows, table.row_traces, strict=True) if trace is None]
    assert all("all" in row for row in pooled), "a mean over the tasks has no runs of its own"
