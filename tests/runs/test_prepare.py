"""What a run is prepared with: micro-batches whose results no number of threads changes; settings that do not fit."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from loralab.errors import UserError
from loralab.runs.run import run
from tests.small_runs import config, cut_off, outcome, trained_on


def lines(store: Path) -> list[dict[str, Any]]:
    (path,) = store.glob("runs/*/metrics.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    "options",
    [
        ("method=lora_plus", "train.precision=bf16"),
        ("method=full", "train.batch_size=7"),
        ("method=lora_plus", "model.dropout=.1", "lora.dropout=.1"),
        ("method=lora_plus", "train.micro_batch_size=3"),
        ("method=intrinsic", "probe.every=null"),
    ],
    ids=" ".join,
)
def test_a_run_has_the_same_bytes_on_any_number_of_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    """Also when it is stopped on one number of threads and goes on with another."""
    one = run(config(tmp_path / "one", *options))
    assert run(config(tmp_path / "three", *options, "train.threads=3"))["run_id"] == one["run_id"]
    cut_off(config(tmp_path / "cut", *options), monkeypatch, at=7)
    assert run(config(tmp_path / "cut", *options, "train.threads=2"))["timing"]["steps_executed"] == 12
    assert outcome(tmp_path / "one") == outcome(tmp_path / "three") == outcome(tmp_path / "cut")


def test_micro_batches_learn_what_the_whole_batch_does(tmp_path: Path) -> None:
    options = ("train.precision=fp32", "train.max_length=24", "optim.lr=3e-3", "train.batch_size=32", "train.steps=4")
    sizes = ("null", "1", "4", "32")
    ids = {run(config(tmp_path / size, *options, f"train.micro_batch_size={size}"))["run_id"] for size in sizes}
    assert len(ids) == 1, "a run has one identity, in however many parts its batches are computed"
    losses = [[line["values"]["loss"] for line in lines(tmp_path / size)] for size in sizes]
    for found in losses[1:]:
        assert found == pytest.approx(losses[0], abs=1e-5)


def test_inputs_longer_than_the_backbone_takes_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^train\.max_length: got 400; tiny takes at most 256 tokens$"):
        run(config(tmp_path, "train.max_length=400"))


def test_a_warm_up_longer_than_the_run_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^optim\.warmup: got 100 steps, and the run has 12; warm up for fewer$"):
        run(config(tmp_path, "optim.warmup=100"))


def test_no_steps_score_the_model_as_every_training_finds_it(tmp_path: Path) -> None:
    options = ("method=lora", "train.eval_first=true")
    run(config(tmp_path / "trained", *options))
    first = next(line for line in lines(tmp_path / "trained") if line["split"] == "validation")
    record = run(config(tmp_path / "untrained", *options, "train.steps=0", "train.pause_at=0.5", "probe.every=1"))
    assert first["step"] == 0
    assert (record["status"], record["steps"], record["metrics"]["test"]["last"]["step"]) == ("success", 0, 0)
    assert record["metrics"]["validation"]["last"] == {"step": 0, **first["values"]}
    assert record["metrics"]["test"]["best"] == record["metrics"]["test"]["last"]
    assert [line["split"] for line in lines(tmp_path / "untrained")] == ["validation"]
    assert run(config(tmp_path / "untrained", *options, "train.steps=0", "probe.every=1")) == record


def test_balanced_classes_are_another_run_and_numbers_have_none(tmp_path: Path) -> None:
    """A class of one in ten, which nothing in the texts tells, is thought more probable with them."""
    for folder in ("plain", "balanced", "numbers"):
        (tmp_path / folder).mkdir()
    rows = [{"text": f"w{i}", "label": "rare" if i % 10 == 0 else "often"} for i in range(100)]
    settings = ("task.text=[text]", "method=head", "train.steps=40", "optim.lr=3e-2", "task.metric=macro_f1")
    runs = [trained_on(tmp_path / "plain", rows, *settings)]
    runs.append(trained_on(tmp_path / "balanced", rows, *settings, "task.class_weights=balanced"))
    assert runs[0].hash != runs[1].hash
    rare = []
    for of in runs:
        last = pd.read_parquet(of.predictions).query("at == 'last'")
        rare.append((np.stack(last["logits"].to_list()) @ [-1, 1]).mean())  # classes in alphabetical order
    assert rare[0] < rare[1] - 0.5
    with pytest.raises(
        UserError, match=r"^task.class_weights: got balanced; local is regression, and classes alone have weights"
    ):
        trained_on(
            tmp_path / "numbers", [{"text": f"w{i}", "label": i / 7} for i in range(30)], "task.text=[text]",
            "task.class_weights=balanced",
        )  # fmt: skip
