"""Estimates: a run like a past one takes as long, more work takes longer, and no past run gives no estimate."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loralab.config.keys import config_values
from loralab.runs.plan import plan
from loralab.runs.run import run
from loralab.sweeps.estimate import Estimator
from tests.small_runs import config

Change = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The record of one real run."""
    store = tmp_path_factory.mktemp("past")
    return {**run(config(store))}


@pytest.fixture
def written(tmp_path: Path, past: dict[str, Any]) -> Callable[..., Path]:
    """A function that adds a record to the test's store: the real one with some nodes changed."""

    def write(name: str = "one", **changes: Any) -> Path:
        record = json.loads(json.dumps(past))
        for node, values in changes.items():
            record[node] = _merged(record[node], values)
        path = tmp_path / "runs" / f"{name}-0123456789"
        path.mkdir(parents=True)
        (path / "record.json").write_text(json.dumps(record))
        return tmp_path

    return write


def _merged(old: Any, new: Any) -> Any:
    if not isinstance(new, dict):
        return new
    return old | {key: _merged(old.get(key), value) for key, value in new.items()}


def wanted(past: dict[str, Any], **changes: dict[str, Any]) -> dict[str, Any]:
    """The past run's config with some values changed: wanted(past, train={"steps": 24})."""
    merged: dict[str, Any] = _merged(past["config"], changes)
    return merged


def wall(past: dict[str, Any]) -> float:
    return float(past["timing"]["seconds"] + past["timing"]["set_up_seconds"])


def test_the_same_run_takes_as_long_again(past: dict[str, Any], written: Callable[..., Path]) -> None:
    store = written()
    assert Estimator(store).seconds(past["config"]) == pytest.approx(wall(past))
    composed = config_values(plan(config(store, "seed=7", "lora.ratio=4", "optim.lr=1e-4")).config)
    assert Estimator(store).seconds(composed) == pytest.approx(wall(past))


def test_more_steps_take_their_training_and_their_validations(
    past: dict[str, Any], written: Callable[..., Path]
) -> None:
    estimator, timing = Estimator(written()), past["timing"]
    longer = estimator.seconds(wanted(past, train={"steps": 24}))
    rows = past["rows"]
    passes = 1 + (past["metrics"]["validation"]["best"]["step"] != 12)
    share = 2 * rows["validation"] / (2 * rows["validation"] + passes * rows["test"])  # two more validations
    assert longer == pytest.approx(wall(past) + timing["training_seconds"] + share * timing["evaluation_seconds"])
    once = estimator.seconds(wanted(past, train={"steps": 12, "eval_every": 12}))
    assert once is not None and once < wall(past)


def test_of_several_runs_the_median_counts(past: dict[str, Any], written: Callable[..., Path]) -> None:
    for name, factor in (("a", 1), ("b", 2), ("c", 300)):  # for example, the third run tokenised a large task
        timing = {key: value * factor for key, value in past["timing"].items() if key.endswith("_seconds")}
        store = written(name, timing=timing)
    assert Estimator(store).seconds(past["config"]) == pytest.approx(2 * wall(past))


def test_the_closest_likeness_counts(past: dict[str, Any], written: Callable[..., Path]) -> None:
    """Same rank and targets first; else any adapter on the task; else the same backbone, per trained example."""
    slow = {"training_seconds": 100.0, "evaluation_seconds": 0.0, "set_up_seconds": 0.0}
    store = written("a", timing=slow, config={"lora": {"rank": 64}})
    store = written("b", timing=slow | {"training_seconds": 40.0})
    estimator = Estimator(store)
    assert estimator.seconds(wanted(past, lora={"rank": 64})) == pytest.approx(100)
    assert estimator.seconds(past["config"]) == pytest.approx(40)
    assert estimator.seconds(wanted(past, lora={"rank": 4})) == pytest.approx(70)
    assert estimator.seconds(wanted(past, lora={"targets": ["q"]})) == pytest.approx(70)
    assert estimator.seconds(wanted(past, method={"name": "head"})) == pytest.approx(70)
    assert estimator.seconds(wanted(past, train={"batch_size": 16})) == pytest.approx(140)
    assert estimator.seconds(wanted(past, task={"name": "trec"})) == pytest.approx(70)
    assert estimator.seconds(wanted(past, model={"name": "minilm"})) is None


def test_a_run_of_another_width_is_no_past_run(past: dict[str, Any], written: Callable[..., Path]) -> None:
    assert Estimator(written()).seconds(wanted(past, model={"widen": 4})) is None


def test_threads_seeds_rates_and_the_order_of_targets_do_not_count(
    past: dict[str, Any], written: Callable[..., Path]
) -> None:
    estimator = Estimator(written())
    other = wanted(past, train={"threads": 2}, optim={"lr": 1.0}, lora={"targets": ["v", "q"], "ratio": 1.0})
    assert estimator.seconds(other | {"seed": 9}) == estimator.seconds(past["config"])


def test_epochs_are_steps_of_the_tasks_rows(past: dict[str, Any], written: Callable[..., Path]) -> None:
    """64 rows in batches of 8: three epochs are 24 steps. Without a run that recorded the task's rows, epochs give no
    estimate."""
    store = written()
    epochs = {"steps": None, "epochs": 3.0}
    assert Estimator(store).seconds(wanted(past, train=epochs)) == pytest.approx(
        Estimator(store).seconds(wanted(past, train={"steps": 24}))
    )
    whole = wanted(past, train=epochs, task={"train_rows": None})
    assert Estimator(store).seconds(whole) is None
    written("whole", rows={"train": 640}, config={"task": {"train_rows": None}})
    ten_times = Estimator(store).seconds(wanted(past, train={"steps": 240}))
    assert Estimator(store).seconds(whole) == pytest.approx(ten_times)
    more_than_there_are = wanted(past, train=epochs, task={"train_rows": 10_000})
    assert Estimator(store).seconds(more_than_there_are) == pytest.approx(ten_times)


@pytest.mark.parametrize("status", ["diverged", "failed"])
def test_runs_that_did_not_succeed_tell_nothing(
    status: str, past: dict[str, Any], written: Callable[..., Path]
) -> None:
    store = written(status=status)
    (store / "runs" / "damaged-0000000000").mkdir()
    (store / "runs" / "damaged-0000000000" / "record.json").write_text("{")
    (store / "runs" / "begun-0000000000").mkdir()
    assert Estimator(store).seconds(past["config"]) is None


def test_a_record_of_another_version_tells_nothing_and_hides_no_other(
    past: dict[str, Any], written: Callable[..., Path]
) -> None:
    expected = Estimator(written("whole")).seconds(past["config"])
    written("without-steps", steps=0)
    record = json.loads(json.dumps(past))
    for node in ("train", "lora", "task"):
        config = {key: value for key, value in record["config"].items() if key != node}
        store = written(f"without-{node}")
        path = store / "runs" / f"without-{node}-0123456789" / "record.json"
        path.write_text(json.dumps(record | {"config": config}))
    assert Estimator(store).seconds(past["config"]) == expected


def test_a_store_without_runs_still_orders_by_length(past: dict[str, Any], tmp_path: Path) -> None:
    estimator = Estimator(tmp_path / "nowhere")
    assert estimator.seconds(past["config"]) is None
    rising = [
        past["config"],
        wanted(past, train={"steps": 13}),
        wanted(past, train={"steps": 13, "batch_size": 16}),
        wanted(past, train={"steps": 13, "batch_size": 16, "max_length": 64}),
        wanted(past, train={"steps": None, "epochs": 9.0, "max_length": 64}),  # of 64 rows
        wanted(past, train={"steps": None, "epochs": 9.0, "max_length": 64}, task={"train_rows": None}),
    ]
    lengths = [estimator.relative(each) for each in rising]
    assert lengths == sorted(set(lengths)) and lengths[0] > 0
    assert not (tmp_path / "nowhere").exists()


def test_the_order_is_the_estimates_where_there_is_one(past: dict[str, Any], written: Callable[..., Path]) -> None:
    estimator = Estimator(written())
    assert estimator.relative(past["config"]) == estimator.seconds(past["config"])


def test_records_are_read_once(past: dict[str, Any], written: Callable[..., Path]) -> None:
    store = written()
    estimator = Estimator(store)
    before = estimator.seconds(past["config"])
    (store / "runs" / "one-0123456789" / "record.json").unlink()
    assert estimator.seconds(past["config"]) == before


def test_importing_it_imports_nothing_heavy() -> None:
    code = "import sys, loralab.sweeps.estimate; assert not {'torch', 'pandas', 'hydra'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_pause_leaves_its_share_of_the_steps_and_no_test(past: dict[str, Any], written: Callable[..., Path]) -> None:
    estimator, timing, rows = Estimator(written()), past["timing"], past["rows"]
    passes = 1 + (past["metrics"]["validation"]["best"]["step"] != 12)
    share = rows["validation"] / (2 * rows["validation"] + passes * rows["test"])  # one of two validations
    half = timing["training_seconds"] / 2 + share * timing["evaluation_seconds"] + timing["set_up_seconds"]
    for at in (0.5, 6):
        assert estimator.seconds(wanted(past, train={"pause_at": at})) == pytest.approx(half)
    assert estimator.seconds(wanted(past, train={"pause_at": 12})) == pytest.approx(wall(past))


def test_a_paused_run_is_no_past_run(tmp_path: Path) -> None:
    record = run(config(tmp_path, "train.pause_at=6"))
    assert Estimator(tmp_path).seconds(record["config"]) is None


def test_evaluations_at_a_share_are_counted_like_those_at_their_steps(
    past: dict[str, Any], written: Callable[..., Path]
) -> None:
    estimator = Estimator(written())
    assert estimator.seconds(wanted(past, train={"eval_every": 0.25})) == estimator.seconds(
        wanted(past, train={"eval_every": 3})
    )
    store = written("share", config={"train": {"eval_every": 0.5}})
    assert Estimator(store).seconds(past["config"]) == pytest.approx(wall(past))
