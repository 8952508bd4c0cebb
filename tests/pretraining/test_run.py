"""Tests of pretraining: train.py loads the model; resuming is bitwise; other settings are refused; deterministic."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from loralab.errors import UserError
from loralab.pretraining.run import pretrain
from loralab.runs.console import Console
from loralab.runs.run import run
from loralab.store.record import PretrainingRecord
from loralab.store.run_lock import LostRunError
from loralab.training.batches import Order
from loralab.training.signals import Interrupted, Interrupts
from tests.config.test_pretrain import config
from tests.processes import Process
from tests.small_runs import CONF
from tests.small_runs import config as run_config

SMALL = (
    "model.width=32", "model.layers=2", "corpus.reviews=60", "corpus.heldout=20", "corpus.vocabulary=600",
    "corpus.length=32", "train.steps=12", "train.batch_size=8", "train.eval_every=5", "train.log_every=3",
    "train.threads=1", "train.device=cpu", "train.precision=fp32", "tracker=none",
)  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one finished pretraining."""
    folder = tmp_path_factory.mktemp("store")
    small(folder)
    return folder


def small(store: Path, *overrides: str) -> PretrainingRecord:
    with Path(os.devnull).open("w") as nowhere:
        return pretrain(config(*SMALL, f"store={store}", *overrides), console=Console(nowhere, nowhere))


def model_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "model").iterdir())}


def lines(folder: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without the times."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in found]


def test_the_record_tells_the_heldout_loss_beside_the_unigram_entropy(store: Path) -> None:
    record = json.loads((store / "pretrained" / "width_32" / "record.json").read_text())
    last = record["metrics"]["validation"]["last"]
    assert record["status"] == "success" and last["step"] == 12
    assert 0 < record["unigram_entropy"] < math.log(600)
    validation = [line for line in lines(store / "pretrained" / "width_32") if line["split"] == "validation"]
    assert [line["step"] for line in validation] == [5, 10, 12]
    assert validation[-1]["values"]["loss"] == last["loss"] < validation[0]["values"]["loss"]


def test_what_is_done_is_not_done_again(store: Path) -> None:
    before = (store / "pretrained" / "width_32" / "record.json").stat().st_mtime_ns
    assert small(store, "train.threads=2", "tracker.project=other")["status"] == "success"
    assert (store / "pretrained" / "width_32" / "record.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("override", "key"),
    [("seed=1", "seed"), ("train.steps=13", "train.steps"), ("corpus.reviews=50", "corpus.reviews")],
)
def test_a_folder_of_other_settings_is_refused_in_a_line_that_names_them(store: Path, override: str, key: str) -> None:
    with pytest.raises(UserError, match=rf"holds a model with {key}=.* name=NAME"):
        small(store, override)


def test_a_run_trains_on_it(store: Path) -> None:
    path = store / "pretrained" / "width_32" / "model"
    record = run(
        run_config(store, "model=width_64", f"model.path={path}", "task=trec", "train.steps=2", "task.eval_rows=16")
    )
    assert record["status"] == "success"
    assert {group["name"] for group in record["groups"]} == {"A", "B", "head", "head.bias"}
    assert record["parameters"]["total"] > 20_000


def test_a_width_that_is_not_pretrained_yet_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"run: python pretrain\.py model\.width=128"):
        run(run_config(tmp_path, "model=width_128"))


def test_a_seed_gives_the_same_bytes_on_any_number_of_threads(store: Path, tmp_path: Path) -> None:
    small(tmp_path)
    one, two = (folder / "pretrained" / "width_32" for folder in (store, tmp_path))
    assert model_bytes(one) == model_bytes(two) and lines(one) == lines(two)
    small(tmp_path, "name=threads", "train.threads=2")
    threads = tmp_path / "pretrained" / "threads"
    assert model_bytes(threads) == model_bytes(one) and lines(threads) == lines(one)


@pytest.mark.parametrize("after", [1, 3, 7])
def test_interrupted_and_resumed_it_is_the_one_that_never_stopped(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    checks = iter(range(1_000))
    with monkeypatch.context() as patch:

        def check(self: Interrupts) -> None:
            if next(checks) == after:
                raise Interrupted(signal.SIGTERM)

        patch.setattr(Interrupts, "check", check)
        with pytest.raises(Interrupted):
            small(tmp_path)
    assert not (tmp_path / "pretrained" / "width_32" / "model").exists()
    with pytest.raises(UserError, match="holds a model with seed=0"):
        small(tmp_path, "seed=1")
    record = small(tmp_path)
    one, two = (folder / "pretrained" / "width_32" for folder in (store, tmp_path))
    assert model_bytes(one) == model_bytes(two) and lines(one) == lines(two)
    assert record["timing"]["steps_executed"] == 12


def test_a_last_update_that_breaks_the_model_is_a_divergence_without_a_model(tmp_path: Path) -> None:
    record = small(tmp_path, "optim.lr_times_width=1e30", "train.steps=1", "optim.warmup=0")
    assert record["status"] == "diverged" and record["metrics"]["validation"]["last"]["loss"] is None
    assert not (tmp_path / "pretrained" / "width_32" / "model").exists()


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["half", "no identity", "another shape"])
def test_a_checkpoint_that_is_not_its_own_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    checks = iter(range(1_000))

    def check(self: Interrupts) -> None:
        if next(checks) == 4:
            raise Interrupted(signal.SIGTERM)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Interrupts, "check", check)
        small(tmp_path)
    path = tmp_path / "pretrained" / "width_32" / "checkpoint" / "state.pt"
    state = torch.load(path, weights_only=True)
    if damage == "half":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "no identity":
        torch.save({key: value for key, value in state.items() if key != "identity"}, path)
    else:
        torch.save(state | {"weights": {name: w[:1] for name, w in state["weights"].items()}}, path)
    with pytest.raises(UserError, match=r"state\.pt is .* \(.*\); remove .*/checkpoint to train"):
        small(tmp_path)


@pytest.mark.slow
def test_a_folder_that_is_deleted_while_it_is_filled_ends_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = Order.batch

    def delete(self: Order, step: int) -> Any:
        if step == 5:
            shutil.rmtree(tmp_path / "pretrained")
        return batch(self, step)

    monkeypatch.setattr(Order, "batch", delete)
    with pytest.raises(LostRunError, match="was removed or replaced"):
        small(tmp_path)
    assert not (tmp_path / "pretrained").exists()


@pytest.mark.slow
def test_killed_at_a_random_moment_the_command_goes_on_and_ends_the_same(store: Path, tmp_path: Path) -> None:
    settings = [*SMALL, f"store={tmp_path}", "train.checkpoint_seconds=0"]
    command = [sys.executable, str(CONF.parent / "pretrain.py"), *settings]
    folder = tmp_path / "pretrained" / "width_32"
    process = Process(command, tmp_path / "killed")
    process.until((folder / "checkpoint" / "state.pt").exists)
    process.kill()
    process.ends(-signal.SIGKILL)
    assert "success" in Process(command, tmp_path / "resumed").ends()
    assert model_bytes(folder) == model_bytes(store / "pretrained" / "width_32")
    assert lines(folder) == lines(store / "pretrained" / "width_32")


@pytest.mark.slow
def test_a_typo_is_one_line_about_this_commands_keys(tmp_path: Path) -> None:
    for argument, line in (
        ("model.widht=64", "error: model.widht: no such key; model has width, layers; did you mean model.width?"),
        ("model.width=wide", "error: model.width: got wide; it must be a whole number"),
        ("--model.width=64", "error: --model.width: settings are written without dashes: model.width=64"),
    ):
        command = [sys.executable, str(CONF.parent / "pretrain.py"), argument, f"store={tmp_path}"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, done.stderr.strip()) == (2, line)
