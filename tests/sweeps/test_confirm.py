"""The second stage: only the selected configurations, on fresh seeds."""

import math
import random
from typing import Any

import numpy as np
import pytest

from loralab.config.overrides import settings
from loralab.sweeps.grid import axes, confirm_jobs, jobs
from tests.sweeps.grids import RATIO, column, ratio

CHOSEN: list[dict[str, Any]] = [
    {"task": "trec", "lora.ratio": 1, "lora.rank": 8, "lora.alpha": 16, "optim.lr": 8e-3, "optim.clip": math.nan},
    {"task": "trec", "lora.ratio": 16, "lora.rank": 1, "lora.alpha": 1, "optim.lr": 5e-5, "optim.clip": None},
]


def test_selected_configurations_are_confirmed_on_fresh_seeds() -> None:
    found = confirm_jobs(ratio(), ["+sweeps=ratio", "tracker=none"], CHOSEN)
    assert len(found) == 2 * 5
    first = ("+sweeps=ratio", "tracker=none", "task=trec", "lora.rank=8", "lora.alpha=16", "lora.ratio=1")
    assert found[0] == (*first, "optim.lr=0.008", "seed=100")
    assert axes(found)["seed"] == [100, 101, 102, 103, 104]
    assert not set(found) & set(jobs(ratio(), ["+sweeps=ratio", "tracker=none"]))


def test_selected_values_may_come_from_a_table() -> None:
    spec = ratio(params={**RATIO["params"], "train.bucketing": [True, False]})
    plain = {"train.bucketing": False, **CHOSEN[0]}
    types = {"train.bucketing": np.bool_, "lora.rank": np.int64, "lora.alpha": np.float64, "optim.lr": np.float64}
    table = {name: types.get(name, lambda value: value)(value) for name, value in plain.items()}
    assert confirm_jobs(spec, [], [table]) == confirm_jobs(spec, [], [plain])


def test_a_configuration_selected_twice_is_confirmed_once() -> None:
    assert confirm_jobs(ratio(), [], [*CHOSEN, CHOSEN[0]]) == confirm_jobs(ratio(), [], CHOSEN)


def test_a_seed_on_the_command_line_is_the_selections_and_leaves_the_fresh_ones() -> None:
    found = confirm_jobs(ratio(), ["seed=0"], CHOSEN)
    assert [settings(job) for job in found] == [settings(job) for job in confirm_jobs(ratio(), [], CHOSEN)]


def test_what_the_first_stage_pins_is_kept_in_the_second() -> None:
    chosen = [{name: value for name, value in CHOSEN[0].items() if name not in ("task", "lora.ratio", "optim.clip")}]
    found = confirm_jobs(ratio(), ["task=trec", "lora.ratio=1", "lora.init=B"], chosen)
    assert len(found) == 5
    assert (column(found, "task"), column(found, "lora.ratio"), column(found, "lora.init")) == (["trec"], [1], ["B"])


def test_an_argument_for_what_only_the_second_stage_has_is_taken_there() -> None:
    confirm = {**RATIO["confirm"], "params": {"seed": [100, 101], "train.epochs": [3, 4]}}
    assert column(confirm_jobs(ratio(confirm=confirm), [], CHOSEN), "train.epochs") == [3, 4]
    found = confirm_jobs(ratio(confirm=confirm), ["train.epochs=2"], CHOSEN)
    assert column(found, "train.epochs") == [2] and len(found) == 2 * 2


def test_a_smoke_size_confirms_on_as_many_fresh_values_as_it_has() -> None:
    chosen = {"lora.ratio": 1, "lora.rank": 1, "lora.alpha": 1}
    found = confirm_jobs(ratio(), [], [chosen], smoke=True)
    assert column(found, "seed") == [100, 101] and column(found, "model") == ["tiny"]


@pytest.mark.parametrize("seed", range(20))
def test_any_job_of_the_grid_can_be_selected_by_the_axes_that_vary(seed: int) -> None:
    draw = random.Random(seed)
    arguments = draw.sample(["lora.init=A,B", "task=trec", "lora.ratio=1", "lora.rank=8", "optim.lr=1e-3,1e-4"], 2)
    found = jobs(ratio(), arguments)
    names = axes(found)
    job = settings(draw.choice(found))
    confirmed = confirm_jobs(ratio(), arguments, [{name: job.get(name) for name in names}])
    assert len(confirmed) == 5
    for fresh in confirmed:
        assert {**settings(fresh), "seed": job["seed"]} == job
