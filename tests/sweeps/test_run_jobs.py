"""A sweep's jobs on a real store: the run of each job, its state, and the record of a failure."""

import json
import multiprocessing
import platform
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf

from loralab import device
from loralab.config.compose import Composer, configs
from loralab.config.schema import from_hydra
from loralab.errors import UserError
from loralab.runs.plan import plan
from loralab.runs.run import run
from loralab.store.run_directory import RunDirectory
from loralab.sweeps.run_jobs import RunJobs, best_value
from loralab.sweeps.run_worker import Result
from loralab.sweeps.scheduler import Outcome
from tests.small_runs import SMALL, config


@pytest.fixture(scope="module")
def composer() -> Composer:
    with configs():
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        master = hydra.compose_config("config", [], run_mode=RunMode.MULTIRUN, with_log_configuration=False)
        return Composer(hydra.config_loader, master)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which seed 0 is finished and seed 1 diverged; not to be changed."""
    store = tmp_path_factory.mktemp("trained")
    run(config(store, "train.steps=2"))
    run(config(store, "train.steps=40", "seed=1", "optim.lr=1e6", "optim.clip=null", "optim.warmup=0"))
    return store


def run_jobs(composer: Composer, store: Path, *jobs: Sequence[str], first: int = 0) -> RunJobs:
    return RunJobs(composer, [(*SMALL, f"store={store}", *job) for job in jobs], first=first)


def record_of(store: Path, key: str) -> Any:
    record: Any = json.loads((store / "runs" / key / "record.json").read_text())
    return record


def test_a_jobs_key_is_its_runs_directory(composer: Composer, tmp_path: Path) -> None:
    made = run_jobs(composer, tmp_path, ("seed=1",), ("seed=2", "lora.rank=4"))
    assert made.keys == [
        plan(config(tmp_path, *overrides)).directory.path.name for overrides in (["seed=1"], ["seed=2", "lora.rank=4"])
    ]


def test_runs_of_one_pack_share_all_but_rates_adapters_and_seeds_and_those_with_the_same_data_order_come_first(
    composer: Composer, tmp_path: Path
) -> None:
    jobs = (("seed=1",), ("seed=2", "optim.lr=0.1"), ("lora.dropout=0.1",), ("task=trec",), ("seed=1", "lora.rank=4"))
    made = run_jobs(composer, tmp_path, *jobs)
    first, *others = made.keys
    assert made.alike(first, others) == [others[3], others[0]]
    assert made.alike(others[1], [first]) == []


def test_what_plans_warn_of_is_said_once_for_a_sweep(
    composer: Composer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "cpu_has_bf16", lambda: False)
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    made = run_jobs(composer, tmp_path, ("seed=1",), *(("train.precision=bf16", f"seed={seed}") for seed in (1, 2)))
    assert made.warnings(made.keys[:1]) == []
    (line,) = made.warnings(made.keys)
    assert line.startswith("train.precision=bf16: ")


def test_one_run_asked_for_twice_has_one_key_and_is_worked_on_once(composer: Composer, tmp_path: Path) -> None:
    made = run_jobs(composer, tmp_path, ("seed=0",), ("seed=1",), ("init_seed=0", "data_seed=0"), ("optim.lr=auto",))
    assert made.keys[0] == made.keys[2] == made.keys[3] != made.keys[1]
    assert len(made.plans) == 2 and made.numbers[made.keys[0]] == 0


def test_a_title_says_what_sets_a_job_apart(composer: Composer, tmp_path: Path) -> None:
    made = run_jobs(composer, tmp_path, ("+sweeps=first", "seed=0", "lora.rank=4"), ("seed=1", "lora.rank=4"), ())
    assert [made.title(key) for key in made.keys[:2]] == ["seed=0 lora.rank=4", "seed=1 lora.rank=4"]
    assert made.title(made.keys[2]) == made.keys[2], "nothing sets it apart"
    alone = run_jobs(composer, tmp_path, ("seed=3",))
    assert alone.title(alone.keys[0]).endswith(" seed=3")


def test_settings_are_those_that_are_typed(composer: Composer, tmp_path: Path) -> None:
    made = run_jobs(composer, tmp_path, ("seed=1",))
    (key,) = made.keys
    made.overrides[key] = ("+sweeps=first", "++seed=1", "lora.targets=[q,v]", "~name")
    assert made.settings(key) == {"seed": "1", "lora.targets": "[q,v]"}


def test_a_payload_is_the_job_with_its_number(composer: Composer, tmp_path: Path) -> None:
    made = run_jobs(composer, tmp_path, ("seed=4",), ("seed=5",), first=10)
    payload = made.payload(made.keys[1])
    assert (payload.seed, payload.hydra.job.num) == (5, 11)
    assert payload.hydra.overrides.task[-1] == "seed=5"
    node = payload.copy()
    node._set_flag("struct", False)
    del node["hydra"]
    assert plan(from_hydra(node)).directory.path.name == made.keys[1]


def test_a_payload_that_was_made_early_is_the_same(composer: Composer, tmp_path: Path) -> None:
    made = run_jobs(composer, tmp_path, ("seed=4",), ("seed=5",))
    wanted = [OmegaConf.to_yaml(made.payload(key)) for key in made.keys]
    for early in (made.keys, made.keys[::-1]):
        for key in early:
            made.ready(key)
        assert [OmegaConf.to_yaml(made.payload(key)) for key in made.keys] == wanted, early


def test_the_wrong_job_names_itself(composer: Composer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^lora.rank: got 0.* \(job 7: .* seed=1 lora.rank=0\)$"):
        run_jobs(composer, tmp_path, ("seed=0",), ("seed=1", "lora.rank=0"), first=6)


def test_how_a_finished_run_went_is_its_record(composer: Composer, trained: Path) -> None:
    diverged = ("train.steps=40", "seed=1", "optim.lr=1e6", "optim.clip=null", "optim.warmup=0")
    made = run_jobs(composer, trained, ("train.steps=2",), diverged, ("train.steps=2", "seed=7"))
    good, bad, missing = (made.done(key) for key in made.keys)
    assert good is not None and bad is not None and missing is None
    record = record_of(trained, made.keys[0])
    scores = record["metrics"]
    assert good == Outcome("success", value=scores["validation"]["best"]["accuracy"], text=good.text)
    assert good.value == best_value(record)
    figures = [f"{split} {scores[split]['last']['accuracy']:.4f}" for split in ("validation", "test")]
    assert good.text == f"accuracy {'  '.join(figures)}  {record['timing']['seconds']:.1f} s".replace("  test", " test")
    assert bad.status == "diverged"
    assert bad.text.startswith(f"at step {record_of(trained, made.keys[1])['steps']}  ")


def test_only_what_is_not_done_is_work_with_a_likely_time(composer: Composer, trained: Path) -> None:
    made = run_jobs(composer, trained, ("train.steps=2", "seed=7"), ("train.steps=2000", "seed=7"))
    short, long = made.jobs(made.keys)
    assert (short.key, short.title) == (made.keys[0], "train.steps=2 seed=7".replace(" seed=7", ""))
    assert short.known and long.known and 0 < short.seconds < long.seconds
    assert made.jobs([]) == []


def test_with_no_past_runs_the_order_is_known_and_no_time(composer: Composer, tmp_path: Path) -> None:
    made = run_jobs(composer, tmp_path, ("train.steps=20",), ("train.steps=200",))
    short, long = made.jobs(made.keys)
    assert not short.known and not long.known and 0 < short.seconds < long.seconds


def hold(path: Path, held: Any) -> None:
    """Another process that holds the run's lock."""
    with RunDirectory(path).hold(wait=False):
        held.set()
        time.sleep(3600)


@pytest.fixture
def elsewhere(composer: Composer, tmp_path: Path) -> Iterator[RunJobs]:
    """The jobs with one run, which a live process holds."""
    made = run_jobs(composer, tmp_path, ())
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    process = context.Process(target=hold, args=(tmp_path / "runs" / made.keys[0], held), daemon=True)
    process.start()
    assert held.wait(60)
    yield made
    process.kill()
    process.join()


def test_a_run_is_held_while_a_live_process_works_on_it(elsewhere: RunJobs, composer: Composer, tmp_path: Path) -> None:
    assert elsewhere.held(elsewhere.keys[0])
    other = run_jobs(composer, tmp_path, ("seed=1",))
    assert not other.held(other.keys[0])


def test_a_failure_of_a_run_that_another_works_on_is_not_written(elsewhere: RunJobs, tmp_path: Path) -> None:
    (key,) = elsewhere.keys
    assert elsewhere.failed(key, "it died", time.time()) == Outcome("failed", text="it died")
    assert not (tmp_path / "runs" / key / "record.json").exists()


def test_what_a_worker_gives_becomes_an_outcome(composer: Composer, trained: Path, tmp_path: Path) -> None:
    made = run_jobs(composer, trained, ("train.steps=2",))
    (key,) = made.keys
    assert made.ended(key, Result("done", 0.5), 0.0) == made.done(key)
    assert made.ended(key, Result("stopped"), 0.0) == Outcome("stopped")
    undone = run_jobs(composer, tmp_path, ("seed=1",))
    assert undone.ended(undone.keys[0], Result("failed", error="why"), 1.0) == Outcome("failed", text="why")
    assert record_of(tmp_path, undone.keys[0])["error"] == "why"


def test_a_death_is_written_down_for_the_run_that_could_not(composer: Composer, tmp_path: Path) -> None:
    made, started = run_jobs(composer, tmp_path, ()), time.time()
    (key,) = made.keys
    assert made.failed(key, "its process was killed", started) == Outcome("failed", text="its process was killed")
    record = record_of(tmp_path, key)
    assert (record["status"], record["error"], record["started"]) == ("failed", "its process was killed", started)
    assert made.done(key) is None, "a failed run is tried again"


def test_a_failure_that_the_run_wrote_itself_stays(composer: Composer, tmp_path: Path) -> None:
    made, started = run_jobs(composer, tmp_path, ()), time.time()
    (key,) = made.keys
    made.failed(key, "its own traceback", started)
    made.failed(key, "a shorter story", started)
    assert record_of(tmp_path, key)["error"] == "its own traceback"
    made.failed(key, "of the next attempt", time.time())
    assert record_of(tmp_path, key)["error"] == "of the next attempt"


def test_a_run_that_its_worker_left_no_record_of_has_failed(composer: Composer, tmp_path: Path) -> None:
    """Its weights or data changed after planning: the worker trained another run."""
    made = run_jobs(composer, tmp_path, ())
    (key,) = made.keys
    outcome = made.ended(key, Result("done", 0.5), time.time())
    assert outcome.status == "failed" and "trained another run" in outcome.text
    assert record_of(tmp_path, key)["error"] == outcome.text


def test_a_failure_that_cannot_be_written_down_is_told_all_the_same(composer: Composer, tmp_path: Path) -> None:
    made = run_jobs(composer, tmp_path, ())
    (key,) = made.keys
    (tmp_path / "runs").touch()  # in place of its folder
    outcome = made.failed(key, "its process was killed", time.time())
    assert outcome.status == "failed"
    assert outcome.text.startswith("its process was killed\n(and it could not be written down: ")


def test_a_run_that_another_finished_meanwhile_has_not_failed(composer: Composer, trained: Path) -> None:
    made = run_jobs(composer, trained, ("train.steps=2",))
    (key,) = made.keys
    before = record_of(trained, key)
    assert made.failed(key, "it died", time.time()) == made.done(key)
    assert record_of(trained, key) == before


def test_a_damaged_record_is_a_failure_and_is_never_trained_over(
    composer: Composer, trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained / "runs", tmp_path / "runs")
    made = run_jobs(composer, tmp_path, ("train.steps=2",))
    (key,) = made.keys
    (tmp_path / "runs" / key / "record.json").write_text('{"status": ')
    for outcome in (made.done(key), made.failed(key, "it died", time.time())):
        assert outcome is not None and outcome.status == "failed" and "record.json is damaged" in outcome.text
    assert (tmp_path / "runs" / key / "record.json").read_text() == '{"status": '


def test_a_run_whose_directory_was_removed_has_failed_and_gets_no_record(composer: Composer, tmp_path: Path) -> None:
    made = run_jobs(composer, tmp_path, ("seed=0",))
    outcome = made.ended(made.keys[0], Result("lost", error="it was removed"), 0.0)
    assert outcome == Outcome("failed", text="it was removed")
    assert not list(tmp_path.glob("runs/*"))


def test_a_store_that_can_only_be_read_is_enough_for_what_is_done(
    composer: Composer, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unwritable(path: Path) -> None:
        raise UserError(f"store: {path} cannot be written to")

    monkeypatch.setattr("loralab.sweeps.run_jobs.make_store", unwritable)
    made = run_jobs(composer, trained, ("train.steps=2",))
    assert made.done(made.keys[0]) is not None
    with pytest.raises(UserError, match="cannot be written to"):
        run_jobs(composer, trained, ("train.steps=2",), ("seed=9",))


@pytest.fixture(scope="module")
def paused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which seed 0 is paused at half of its 12 steps; not to be changed."""
    store = tmp_path_factory.mktemp("paused")
    run(config(store, "train.pause_at=0.5"))
    return store


@pytest.mark.parametrize(
    ("job", "done"),
    [("train.pause_at=6", True), ("train.pause_at=0.5", True), ("train.pause_at=2", True), ("train.pause_at=7", False),
     ("train.pause_at=100", False), ("train.pause_at=null", False)],
)  # fmt: skip
def test_a_paused_run_is_done_for_a_job_that_pauses_it_there_or_earlier(
    composer: Composer, paused: Path, job: str, done: bool
) -> None:
    made = run_jobs(composer, paused, (job,))
    (key,) = made.keys
    outcome, scores = made.done(key), record_of(paused, key)["metrics"]["validation"]["best"]
    assert (outcome is not None) == done
    if outcome is not None:
        assert (outcome.status, outcome.value) == ("paused", scores["accuracy"])
        assert outcome.text.startswith(f"paused at step 6 of 12 (validation loss {scores['loss']:.4f})  ")


def test_a_finished_run_is_done_wherever_a_job_pauses_it(composer: Composer, trained: Path) -> None:
    made = run_jobs(composer, trained, ("train.steps=2", "train.pause_at=1"))
    outcome = made.done(made.keys[0])
    assert outcome is not None and outcome.status == "success"


def test_a_sweep_pauses_a_run_at_one_step(composer: Composer, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"^train.pause_at: got 0.3 and 0.6 for one run, .*; give a sweep one of the two$"
    ):
        run_jobs(composer, tmp_path, ("train.pause_at=0.3",), ("train.pause_at=0.6",))


def test_a_job_that_pauses_is_expected_to_take_its_share(composer: Composer, trained: Path, tmp_path: Path) -> None:
    for store in (trained, tmp_path):  # with past runs, and without
        made = run_jobs(composer, store, ("seed=7", "train.pause_at=0.25"), ("seed=8",))
        short, whole = made.jobs(made.keys)
        assert 0 < short.seconds < whole.seconds


def test_again_a_finished_run_is_work_until_a_worker_has_it(composer: Composer, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    made = run_jobs(composer, tmp_path, ("train.steps=2", "train.again=true", "name=mine"))
    (key,) = made.keys
    assert made.done(key) is None and record_of(tmp_path, key)["status"] == "success", "kept until it begins"
    assert made.payload(key).train.again is False, "a worker that dies goes on from its checkpoint"
    assert made.done(key) is None and not (tmp_path / "runs" / key / "record.json").exists()
