"""Gradient checkpointing: the same bits in less memory."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from loralab.backbones.recompute import recompute_layers
from loralab.backbones.shortcuts import short_texts
from loralab.errors import UserError
from loralab.runs.load import load_run
from loralab.runs.run import run
from loralab.store.run_directory import RunDirectory
from tests.small_runs import config, outcome

ON = "model.gradient_checkpointing=true"


@pytest.mark.parametrize(
    "options",
    [
        ("model.dropout=0.1", "lora.dropout=0.1"),
        ("method=dora", "train.threads=2"),
        ("method=full", "optim.lr=1e-3", "train.precision=bf16"),
        ("model=tiny_decoder", "task=sql", "train.max_length=128", "generate.max_new_tokens=4"),
        ("method=houlsby", "optim.lr=1e-3"),
    ],
    ids=lambda options: options[0],
)
def test_a_run_has_the_same_name_and_bytes(options: tuple[str, ...], tmp_path: Path) -> None:
    few = ("train.steps=3", "train.eval_every=3", "task.train_rows=24", "task.eval_rows=16", *options)
    kept = run(config(tmp_path / "kept", *few))
    again = run(config(tmp_path / "again", ON, *few))
    assert again["run_id"] == kept["run_id"]
    assert outcome(tmp_path / "again") == outcome(tmp_path / "kept")


def test_what_waits_for_the_backward_pass_is_less(finished: RunDirectory) -> None:
    model, _ = load_run(finished.path)
    model.requires_grad_(True).train()
    texts = {name: value.repeat(8, 4) for name, value in short_texts(model).items()}

    def kept() -> int:
        sizes: list[int] = []

        def pack(tensor: Tensor) -> Tensor:
            sizes.append(tensor.nbytes)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(**texts)
        return sum(sizes)

    before = kept()
    recompute_layers(model, name="tiny")
    assert kept() < before / 2


def test_a_family_without_it_is_one_line(finished: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = load_run(finished.path)
    monkeypatch.setattr(type(model), "supports_gradient_checkpointing", False)
    with pytest.raises(UserError, match=r"^model\.gradient_checkpointing: transformers has none for mine \(BertForSeq"):
        recompute_layers(model, name="mine")
