"""A worker's functions, in this process: a real job's result, the messages it sends, and what it leaves behind."""

import gc
import json
import os
import shutil
import signal
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig
from torch.optim.optimizer import register_optimizer_step_post_hook

from loralab.config.compose import Composer, configs
from loralab.runs.console import Console
from loralab.sweeps.run_worker import SAY_SECONDS, Reporter, Result, Shared, prepare
from loralab.sweeps.worker import Ended
from tests.small_runs import SMALL

Compose = Callable[..., DictConfig]
TOLD: list[dict[str, Any]] = []


def into(told: list[Any]) -> Callable[..., None]:
    """A worker's `tell` that stores the messages."""

    def tell(content: Any, silence: float | None = None) -> None:
        told.append(content)

    return tell


@pytest.fixture
def compose(tmp_path: Path) -> Iterator[Compose]:
    """The jobs of a sweep as the launcher passes them to a worker, which is prepared for them."""
    with configs():
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        many = ["hydra.mode=MULTIRUN"]  # as with -m
        master = hydra.compose_config("config", many, run_mode=RunMode.MULTIRUN, with_log_configuration=False)
        composer = Composer(hydra.config_loader, master)

        def job(*overrides: str) -> DictConfig:
            return composer.job([*SMALL, f"store={tmp_path}", *overrides], 0)

        yield job


@pytest.fixture
def work(compose: Compose) -> Iterator[Callable[[DictConfig], Result]]:
    """The function that a worker runs jobs with."""
    TOLD.clear()
    hydra = GlobalHydra.instance()
    context = HydraContext(config_loader=hydra.config_loader(), callbacks=Callbacks())
    yield prepare(Shared(context, "train", "train", "main"), into(TOLD))
    gc.unfreeze()


def record(store: Path) -> dict[str, Any]:
    (path,) = store.glob("runs/*/record.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_a_job_is_a_run_and_gives_its_best_validation_score(
    compose: Compose, work: Callable[[DictConfig], Result], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = work(compose())
    done = record(tmp_path)
    assert done["status"] == "success"
    assert result == Result("done", done["metrics"]["validation"]["best"]["accuracy"])
    assert capsys.readouterr() == ("", ""), "the parent has the screen"
    assert TOLD[0] == {} and {"step": 0, "steps": 12} in TOLD and {"step": 12} in TOLD
    assert set().union(*TOLD) <= {"step", "steps", "values"}
    assert not list((tmp_path / "multirun").iterdir()), "Hydra's folder of the job held nothing"

    trained, TOLD[:] = len(TOLD), []
    assert work(compose()) == result
    assert TOLD == [{}] and trained > 3, "a run that is done is not trained, and its worker lives"


def test_a_job_that_pauses_gives_its_best_score_so_far_and_says_that_it_took_all_its_steps(
    compose: Compose, work: Callable[[DictConfig], Result], tmp_path: Path
) -> None:
    TOLD.clear()
    result = work(compose("train.pause_at=6"))
    paused = record(tmp_path)
    assert (paused["status"], paused["steps"]) == ("paused", 6)
    assert result == Result("done", paused["metrics"]["validation"]["best"]["accuracy"])
    assert TOLD[-1] == {"step": 6, "steps": 6}
    assert work(compose()).status == "done" and record(tmp_path)["timing"]["steps_executed"] == 12


def test_where_all_runs_of_the_sweep_are_mirrored_is_sent(
    compose: Compose, work: Callable[[DictConfig], Result], tmp_path: Path
) -> None:
    TOLD.clear()
    assert work(compose("tracker=tensorboard", "train.steps=1")).status == "done"
    folder = f"{tmp_path / 'tensorboard'}"
    assert [each["mirrored"] for each in TOLD if "mirrored" in each] == [
        f"{folder}/loralab; `tensorboard --logdir {folder}` shows it"
    ]


def test_what_is_logged_as_a_warning_is_sent(
    compose: Compose, work: Callable[[DictConfig], Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(mirror: object, *, resumed: bool) -> str:
        raise RuntimeError("no network")

    monkeypatch.setattr("loralab.store.wandb_mirror.WandbMirror.start", start)
    assert work(compose("tracker=wandb", "train.steps=1")).status == "done"
    assert [each for each in TOLD if "warning" in each or "mirrored" in each] == [
        {"warning": "wandb failed, and the run goes on without it: no network"}
    ]


def test_a_users_mistake_is_one_line(compose: Compose, work: Callable[[DictConfig], Result]) -> None:
    result = work(compose("lora.targets=[nope]"))
    assert result.status == "failed" and result.value is None
    assert result.error.startswith("lora.targets: 'nope' matches no") and "\n" not in result.error


def test_a_bug_has_its_traceback_and_the_next_job_is_none_the_worse(
    compose: Compose, work: Callable[[DictConfig], Result], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def bug(*_: Any) -> None:
        raise ZeroDivisionError("a bug")

    handle = register_optimizer_step_post_hook(bug)
    try:
        result = work(compose())
    finally:
        handle.remove()
    assert result.status == "failed"
    assert result.error.startswith("Traceback") and result.error.endswith("ZeroDivisionError: a bug\n")
    assert "in bug" in result.error and record(tmp_path)["error"].endswith("ZeroDivisionError: a bug\n")
    assert capsys.readouterr() == ("", "")
    assert work(compose()).status == "done"


def test_a_run_that_is_told_to_stop_has_its_checkpoint_and_goes_on(
    compose: Compose, work: Callable[[DictConfig], Result], tmp_path: Path
) -> None:
    steps: list[int] = []

    def stop(*_: Any) -> None:
        steps.append(1)
        if len(steps) == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    handle = register_optimizer_step_post_hook(stop)
    try:
        assert work(compose()) == Result("stopped")
        assert {"step": 5} in TOLD and list(tmp_path.glob("runs/*/checkpoint/state.pt"))
        assert work(compose()).status == "done"
    finally:
        handle.remove()
    assert len(steps) == 12, "no step was executed twice"
    assert {"step": 5, "steps": 12} in TOLD


@pytest.mark.parametrize("ends", ["well", "badly"])
def test_no_weight_of_a_run_is_left_behind(ends: str, compose: Compose, work: Callable[[DictConfig], Result]) -> None:
    """For every ending, in a worker's first job and in a later one, with automatic garbage collection disabled."""
    weights: list[weakref.ref[Any]] = []

    def look(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        weights[:] = [weakref.ref(weight) for group in optimizer.param_groups for weight in group["params"]]
        if ends == "badly":
            raise ZeroDivisionError

    handle = register_optimizer_step_post_hook(look)
    gc.disable()
    try:
        for seed in (0, 1):
            assert work(compose(f"seed={seed}")).status == ("done" if ends == "well" else "failed")
            assert weights and [weight() for weight in weights] == [None] * len(weights)
    finally:
        gc.enable()
        handle.remove()


def test_the_console_of_a_job_is_the_workers_and_then_no_more(
    compose: Compose, work: Callable[[DictConfig], Result]
) -> None:
    work(compose("lora.targets=[nope]"))
    assert type(Console.for_terminal()) is Console


def test_steps_and_figures_are_told_now_and_then_and_the_last_step_always(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    told: list[dict[str, Any]] = []
    reporter = Reporter(into(told))
    reporter.started("name", 100, [], resumed_at=90)
    for step in range(91, 101):
        now[0] += 0.4 * SAY_SECONDS
        reporter.step(step)
        reporter.line({"step": step, "split": "train", "values": {"loss": 1 / step, "gone": None}})
    assert told[0] == {"step": 90, "steps": 100}
    assert [message["step"] for message in told[1:] if "step" in message] == [91, 94, 97, 100]
    assert {"values": "train loss 0.01"} not in told  # the last step was just reported


def test_an_evaluation_of_many_batches_gives_signs_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    told: list[dict[str, Any]] = []
    reporter = Reporter(into(told))
    for _ in range(10):
        now[0] += 0.5 * SAY_SECONDS
        reporter.alive()
    assert told == [{}] * 5
    now[0] += SAY_SECONDS
    reporter.line({"step": 3, "split": "validation", "values": {"accuracy": 0.5, "loss": None}})
    assert told[-1] == {"values": "validation accuracy 0.5"}


def test_a_run_whose_directory_is_removed_is_lost_in_one_line(
    compose: Compose, work: Callable[[DictConfig], Result], tmp_path: Path
) -> None:
    handle = register_optimizer_step_post_hook(lambda *_: shutil.rmtree(tmp_path / "runs"))
    try:
        result = work(compose())
    finally:
        handle.remove()
    assert result.status == "lost" and "was removed or replaced while its run trained" in result.error
    assert "\n" not in result.error and not (tmp_path / "runs").exists()


def test_a_list_of_jobs_is_a_pack_whose_messages_are_numbered(
    compose: Compose, work: Callable[[Any], Any], tmp_path: Path
) -> None:
    jobs = [compose(f"seed={seed}", "task=rotten_tomatoes") for seed in (0, 1)]
    assert work([*jobs, compose("lora.targets=[nope]", "task=rotten_tomatoes")]) is None
    records = [json.loads(path.read_text()) for path in tmp_path.glob("runs/*/record.json")]
    assert [(record["status"], record["packed"]) for record in records] == [("success", 2)] * 2
    told: list[Any] = [each for each in TOLD if isinstance(each, tuple)]
    failed = Result("failed", error=work(compose("lora.targets=[nope]")).error)
    assert [each for each in told if isinstance(each[1], Ended)] == [
        (2, Ended(failed)), (0, Ended(Result("done"))), (1, Ended(Result("done"))),
    ]  # fmt: skip
    assert {i for i, content in told if not isinstance(content, Ended) and content.get("step") == 12} == {0, 1}
    assert not list((tmp_path / "multirun").iterdir()), "Hydra's folder of the job held nothing"
