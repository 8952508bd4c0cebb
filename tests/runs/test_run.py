"""Tests of runs in this process: the record, determinism, and running the same config again."""

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from loralab.errors import UserError
from loralab.runs.build import adapted_backbone, read_task
from loralab.runs.plan import plan
from loralab.runs.run import run
from loralab.store.run_lock import LostRunError
from loralab.training.batches import Order
from loralab.training.signals import Interrupts
from tests.small_runs import config, cut_off, outcome


def lines(store: Path) -> list[dict[str, Any]]:
    (path,) = store.glob("runs/*/metrics.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one finished run."""
    path = tmp_path_factory.mktemp("store")
    run(config(path))
    return path


def test_the_record_holds_all_that_a_reviewer_asks(store: Path) -> None:
    (path,) = store.glob("runs/*/record.json")
    record = json.loads(path.read_text())
    assert record["run_id"] == path.parent.name.rsplit("-", 1)[-1]
    assert record["status"] == "success"
    assert record["config"]["lora"]["ratio"] == 4
    for split in ("validation", "test"):
        assert record["metrics"][split].keys() == {"best", "last"}
        for at in record["metrics"][split].values():
            assert at.keys() == {"step", "accuracy", "loss"}
    rates = {group["name"]: group["lr"] for group in record["groups"]}
    assert rates["B"] == 4 * rates["A"] == 4 * record["config"]["optim"]["lr"]
    assert sum(group["parameters"] for group in record["groups"]) == record["parameters"]["trainable"]
    assert record["timing"]["steps_executed"] == record["steps"] == 12
    assert record["timing"]["steps_per_second"] > 0
    assert record["memory"]["host_bytes"] > 0
    assert record["rows"] == {"train": 64, "validation": 64, "test": 64}
    for key in ("versions", "git", "device", "threads", "identity", "started", "ended"):
        assert record[key]


def test_metrics_are_one_object_a_line_with_both_rates(store: Path) -> None:
    found = lines(store)
    assert [(line["split"], line["step"]) for line in found if line["split"] != "train"] == [
        ("validation", 6),
        ("validation", 12),
    ]
    assert [line["step"] for line in found if line["split"] == "train"] == list(range(1, 13))
    for line in found:
        assert line.keys() == {"step", "split", "values", "lr_A", "lr_B", "seconds"}
        assert line["lr_B"] == pytest.approx(4 * line["lr_A"])
    assert found[0]["lr_A"] == 0  # the warm-up's first step


def test_predictions_give_the_records_accuracy(store: Path) -> None:
    (path,) = store.glob("runs/*/predictions.parquet")
    table = pd.read_parquet(path)
    record = json.loads((path.parent / "record.json").read_text())
    for at, part in table.groupby("at"):
        right = [logits.argmax() == label for logits, label in zip(part["logits"], part["label"], strict=True)]
        assert sum(right) / len(right) == pytest.approx(record["metrics"]["test"][at]["accuracy"])


def test_same_seed_same_bytes(store: Path, tmp_path: Path) -> None:
    run(config(tmp_path))
    assert outcome(tmp_path) == outcome(store)


def test_another_seed_gives_another_run(store: Path, tmp_path: Path) -> None:
    run(config(tmp_path, "seed=1"))
    assert outcome(tmp_path)["weights"] != outcome(store)["weights"]


def test_a_finished_run_is_given_back_untouched(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = outcome(store)
    again = run(config(store, "tracker=wandb", "tracker.mode=offline", "train.threads=2"))
    assert "already done" in capsys.readouterr().out
    assert again["metrics"] == before["metrics"]
    assert outcome(store) == before
    assert not (store / "wandb").exists()


def test_ratio_one_is_lora_bit_for_bit_also_through_the_command(tmp_path: Path) -> None:
    run(config(tmp_path / "plus", "lora.ratio=1"))
    run(config(tmp_path / "lora", "method=lora"))
    assert outcome(tmp_path / "plus") == outcome(tmp_path / "lora")
    assert plan(config(tmp_path, "lora.ratio=1")).directory == plan(config(tmp_path, "method=lora")).directory


def test_the_head_alone_trains_nothing_else(tmp_path: Path) -> None:
    record = run(config(tmp_path, "method=head"))
    assert record["parameters"]["trainable"] == record["parameters"]["head"]
    assert [group["name"] for group in record["groups"]] == ["head", "head.bias"]
    assert {line["lr_A"] for line in lines(tmp_path)} == {None}


def test_full_fine_tuning_trains_every_weight_at_one_rate(tmp_path: Path) -> None:
    """Whatever the adapter's ratio and the released optimizer's groups would say."""
    record = run(config(tmp_path, "method=full", "lora.ratio=16", "optim.groups=reference", "optim.weight_decay=0.1"))
    assert record["status"] == "success"
    assert record["parameters"]["trainable"] == record["parameters"]["total"]
    groups = {group["name"]: (group["lr"], group["weight_decay"]) for group in record["groups"]}
    decays = {"weight": 0.1, "bias": 0.0, "norm": 0.0, "head": 0.1, "head.bias": 0.0}
    assert groups == {name: (5e-5, decay) for name, decay in decays.items()}
    assert sum(group["parameters"] for group in record["groups"]) == record["parameters"]["total"]
    assert {line["lr_A"] for line in lines(tmp_path)} == {None}


def test_full_fine_tuning_starts_where_lora_does(tmp_path: Path) -> None:
    for method in ("full", "lora"):
        run(config(tmp_path / method, f"method={method}", "train.precision=fp32", "optim.lr=1e-3"))
    full, lora = (
        [line["values"]["loss"] for line in lines(tmp_path / method) if line["split"] == "train"]
        for method in ("full", "lora")
    )
    assert full[:2] == lora[:2]  # the warm-up's first step has a rate of 0
    assert full[2] != lora[2]


def test_full_fine_tuning_at_no_rate_saves_the_checkpoint_that_it_began_with(tmp_path: Path) -> None:
    asked = config(tmp_path, "method=full", "optim.lr=1e-30")
    run(asked)
    planned = plan(asked)
    stored = load_file(planned.directory.model / "model.safetensors")
    backbone = adapted_backbone(planned, read_task(planned)).model.state_dict()
    assert stored.keys() <= backbone.keys()
    assert {w.dtype for w in stored.values()} == {torch.float32}
    for name, weight in stored.items():
        torch.testing.assert_close(weight, backbone[name], rtol=0, atol=1e-25, msg=name)  # a zero has become 1e-30


def test_divergence_is_a_final_status_with_nulls_and_ends_with_advice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = run(config(tmp_path, "optim.lr=1e6", "optim.clip=null", "train.steps=40", "optim.warmup=0"))
    assert record["status"] == "diverged"
    assert "\nadvice: the run diverged: optim.lr=1e+06 is " in capsys.readouterr().err
    assert record["steps"] < 40
    assert "test" not in record["metrics"]
    text = (
        next(tmp_path.glob("runs/*/record.json")).read_text() + next(tmp_path.glob("runs/*/metrics.jsonl")).read_text()
    )
    assert "NaN" not in text and "Infinity" not in text
    assert (
        run(config(tmp_path, "optim.lr=1e6", "optim.clip=null", "train.steps=40", "optim.warmup=0"))["ended"]
        == record["ended"]
    )


def test_an_exception_is_recorded_and_the_run_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of luck")

    with monkeypatch.context() as patch:
        patch.setattr("loralab.methods.formats.peft_lora.save_peft", broken)
        with pytest.raises(RuntimeError, match="out of luck"):
            run(config(tmp_path))
    (path,) = tmp_path.glob("runs/*/record.json")
    failed = json.loads(path.read_text())
    assert failed["status"] == "failed"
    assert "RuntimeError: out of luck" in failed["error"]
    record = run(config(tmp_path))
    assert record["status"] == "success"
    assert record["timing"]["steps_executed"] == 12  # it went on from the checkpoint before the final write


def test_dropout_and_every_option_of_the_adapter_train(tmp_path: Path) -> None:
    options = (
        "lora.dropout=0.1",
        "model.dropout=0.1",
        "lora.bias=all",
        "lora.targets=[all,word_embeddings]",
        "lora.init=B",
    )
    record = run(
        config(tmp_path, *options, "lora.scaling=alpha/sqrt_r", "lora.rank_pattern={q:2}", "optim.groups=reference")
    )
    assert {group["name"] for group in record["groups"]} == {"groupA", "groupB", "groupB_no_decay", "embedding"}
    weights = load_file(next(tmp_path.glob("runs/*/adapter/adapter_model.safetensors")))
    assert all(torch.isfinite(w).all() for w in weights.values())


def test_a_stop_at_any_moment_of_the_end_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while the best step's weights are in place to be tested: they must not be taken for the last step's."""
    options = ("task.eval_rows=null", "optim.lr=3e-2", "train.eval_every=2", "train.threads=2", "seed=3")
    whole = run(config(tmp_path / "whole", *options))
    assert whole["metrics"]["validation"]["best"]["step"] < 12, "the best step must not be the last one here"
    checks = 0

    def count(self: Interrupts) -> None:
        nonlocal checks
        checks += 1

    with monkeypatch.context() as patch:
        patch.setattr(Interrupts, "check", count)
        run(config(tmp_path / "counted", *options))
    for stop in (checks - 40, checks - 20, checks - 3, checks):  # the last 54 are those of the two test passes
        store = tmp_path / f"cut{stop}"
        cut_off(config(store, *options), monkeypatch, at=stop)
        run(config(store, *options))
        assert outcome(store) == outcome(tmp_path / "whole"), f"stopped at check {stop} of {checks}"


@pytest.mark.parametrize("method", ["lora_plus", "full"])
def test_a_run_in_bf16_repeats_and_goes_on_to_the_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """At a length for which the softmax is in fp32; the stop is in the middle of the training."""
    numbers = ("train.threads=2", "train.precision=bf16", "train.max_length=24", "train.eval_every=12")
    options = (f"method={method}", *numbers)
    run(config(tmp_path / "whole", *options))
    cut_off(config(tmp_path / "cut", *options), monkeypatch, at=7)
    record = run(config(tmp_path / "cut", *options))
    assert record["timing"]["steps_executed"] == 12
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")


def test_a_lucky_first_batch_is_no_divergence(tmp_path: Path) -> None:
    options = ("task=snippets", "train.batch_size=1", "train.steps=40", "train.log_every=10", "method=lora")
    assert run(config(tmp_path, *options, "seed=0"))["status"] == "success"


@pytest.mark.parametrize("damage", ["metrics.jsonl", "checkpoint/state.pt", "record.json"])
def test_a_damaged_run_is_one_line_that_says_what_to_remove(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr("loralab.methods.formats.peft_lora.save_peft", stop)
        with pytest.raises(RuntimeError):
            run(config(tmp_path))
    (path,) = tmp_path.glob(f"runs/*/{damage}")
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UserError, match=r"remove "):
        run(config(tmp_path))


def test_a_last_update_that_breaks_the_model_is_a_divergence(tmp_path: Path) -> None:
    """No training loss follows it: the last evaluation tells. Its scores are kept, and its weights are not."""
    broken = ("optim.warmup=0", "train.steps=1", "train.eval_every=1", "optim.schedule=constant", "optim.clip=null")
    for lr, null in (("1e30", True), ("1e3", False)):
        store = tmp_path / lr
        record = run(config(store, *broken, f"optim.lr={lr}"))
        last = record["metrics"]["validation"]["last"]
        assert record["status"] == "diverged" and last["step"] == 1 and (last["loss"] is None) == null
        assert null or last["loss"] > 20
        assert "test" not in record["metrics"] and not list(store.glob("runs/*/adapter"))


@pytest.mark.parametrize("lost", ["store/runs/*", "store/runs", "store"])
def test_a_run_that_is_deleted_while_it_trains_ends_in_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    store, batch = tmp_path / "store", Order.batch

    def delete(self: Order, step: int) -> Any:
        if step == 5:
            shutil.rmtree(next(tmp_path.glob(lost)))
        return batch(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(Order, "batch", delete)
        with pytest.raises(LostRunError, match="was removed or replaced while its run trained"):
            run(config(store))
    assert not list(store.glob("runs/*"))
    assert run(config(store))["timing"]["steps_executed"] == 12


def test_a_finished_run_needs_a_store_that_can_be_read_and_no_more(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unwritable(path: Path) -> None:
        raise UserError(f"store: {path} cannot be written to")

    monkeypatch.setattr("loralab.runs.run.make_store", unwritable)
    assert run(config(store))["status"] == "success"
    with pytest.raises(UserError, match="cannot be written to"):
        run(config(tmp_path))


def test_a_finished_run_loses_the_checkpoint_that_a_kill_left(store: Path) -> None:
    (path,) = store.glob("runs/*")
    (path / "checkpoint").mkdir()
    run(config(store))
    assert not (path / "checkpoint").exists()


def test_a_checkpoint_of_another_seed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in (0, 1):
        cut_off(config(tmp_path / str(seed), f"seed={seed}"), monkeypatch, at=7)
    mine, other = (next((tmp_path / str(seed)).glob("runs/*/checkpoint")) for seed in (0, 1))
    shutil.copy(other / "state.pt", mine / "state.pt")
    with pytest.raises(UserError, match=r"state\.pt is not a checkpoint of this run \(its run is .*\); remove "):
        run(config(tmp_path / "0"))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_fixed_seed_losses_are_golden(tmp_path: Path, precision: str) -> None:
    """Fails when a fixed-seed loss sequence changes: then bump NUMERICS_VERSION, and write the new figures here.

    They are what the last line prints when it fails, rounded: the training losses of this very run, on one thread.
    """
    golden = {
        "fp32": [
            1.34518, 1.58022, 0.84604, 0.82385, 0.68959, 0.65875,
            0.72739, 0.71808, 0.75008, 0.82199, 0.59033, 0.70229,
        ],
        "bf16": [
            1.34314, 1.57757, 0.84467, 0.82249, 0.68826, 0.65783,
            0.72739, 0.71542, 0.75201, 0.8202, 0.59058, 0.70408,
        ],
    }  # fmt: skip
    run(config(tmp_path, "lora.ratio=16", "optim.lr=1e-3", f"train.precision={precision}"))
    losses = [line["values"]["loss"] for line in lines(tmp_path) if line["split"] == "train"]
    assert losses == pytest.approx(golden[precision], abs=2e-4 if precision == "fp32" else 5e-3), losses


def test_a_run_leaves_torch_the_number_of_its_threads(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        run(config(tmp_path))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
