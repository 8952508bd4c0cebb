"""Runs with `model.widen`: by the settings alone a wide run follows a narrow one, is resumed and is looked into."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from loralab.cli.runs import shown
from loralab.inspect.updates import find_adapter, initial_updates
from loralab.runs.load import load_run
from loralab.runs.plan import plan
from loralab.runs.run import run
from loralab.store.run_directory import RunDirectory
from tests.small_runs import config, cut_off, outcome

EXACT = ("optim.clip=null", "optim.eps=1e-16", "optim.head_lr=4e-3", "optim.lr=2e-3", "lora.ratio=4")


def trained(store: Path, *overrides: str) -> RunDirectory:
    asked = config(store, *overrides)
    run(asked)
    return plan(asked).directory


def losses(of: RunDirectory, split: str) -> list[float]:
    lines = map(json.loads, (of.path / "metrics.jsonl").read_text().splitlines())
    return [line["values"]["loss"] for line in lines if line["split"] == split]


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return trained(tmp_path_factory.mktemp("narrow"), *EXACT)


def test_with_lr_and_head_lr_over_k_and_k_times_lambda_the_losses_are_the_narrow_runs(
    narrow: RunDirectory, tmp_path: Path
) -> None:
    """BERT's classifier has a bias, whose rate the run keeps; at equal rates the losses part."""
    by_law = ("optim.lr=1e-3", "lora.ratio=8", "optim.head_lr=2e-3")
    for rates, follows in ((by_law, True), ((), False)):
        wide = trained(tmp_path, *EXACT, "model.widen=2", *rates)
        for split in ("train", "validation"):
            apart = np.abs(np.subtract(losses(wide, split), losses(narrow, split))).max()
            assert (apart < 1e-5) == follows, (rates, split, apart)
    record = wide.finished()
    assert record is not None and record["backbone"]["width"] == 128
    lines = shown(wide)
    assert wide.path.name.startswith("tiny-w2-") and "model.widen=2" in lines[1]
    rates_of = {group["name"]: group["lr"] for group in record["groups"]}
    assert rates_of == {"A": 2e-3, "B": 8e-3, "head": 4e-3, "head.bias": 8e-3}


def test_the_factors_of_exact_copies_start_as_copies_and_the_weights_are_the_wide_ones(
    narrow: RunDirectory, tmp_path: Path
) -> None:
    wide = trained(tmp_path, *EXACT, "model.widen=2", "train.steps=1")
    own, theirs = initial_updates(wide), initial_updates(narrow)
    weights, of_narrow = (
        find_adapter(tmp_path, wide.path.name).weights(),
        find_adapter(narrow.path.parents[1], narrow.path.name).weights(),
    )
    assert own.keys() == theirs.keys()
    for name, update in own.items():
        assert np.array_equal(update.A, np.tile(theirs[name].A, 2) / 2)
        np.testing.assert_allclose(weights[name], np.tile(of_narrow[name], (2, 2)) / 2, rtol=0, atol=0)


def test_a_resumed_run_with_noise_equals_one_in_one_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = (
        config(tmp_path / name, "model.widen=2", "model.widen_noise=0.5", "optim.lr=1e-3", "train.checkpoint_seconds=0")
        for name in ("whole", "parts")
    )
    run(whole)
    cut_off(parts, monkeypatch, at=5)
    run(parts)
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")


@pytest.mark.slow
def test_minilm_twice_as_wide_has_the_narrow_runs_losses_and_its_weights_are_loaded_again(tmp_path: Path) -> None:
    shared = ("model=minilm", "task=trec", "train.steps=4", "train.eval_every=2", "train.precision=fp32", *EXACT)
    narrow, wide = (
        trained(tmp_path, *shared, *own)
        for own in ((), ("model.widen=2", "optim.lr=1e-3", "lora.ratio=8", "optim.head_lr=2e-3"))
    )
    np.testing.assert_allclose(losses(wide, "validation"), losses(narrow, "validation"), rtol=0, atol=1e-5)
    found = []
    for run_directory in (narrow, wide):
        model, tokenizer = load_run(run_directory.path)
        with torch.no_grad():
            found.append(model(**tokenizer(["Who wrote Hamlet ?"], return_tensors="pt")).logits)
    assert model.config.hidden_size == 768
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-5)
