"""Checkpoints: the restored state equals the captured one bit for bit."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from loralab.training import checkpoint
from loralab.training.checkpoint import Checkpointer, Trained


def build(seed: int) -> tuple[nn.Module, Trained]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(5, 7), nn.Dropout(0.3), nn.Linear(7, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    return model, Trained(dict(model.named_parameters()), optimizer, torch.amp.GradScaler("cpu", enabled=False))


def step(model: nn.Module, trained: Trained) -> float:
    x = torch.from_numpy(np.random.standard_normal((4, 5)).astype(np.float32)) * random.random()
    loss = model(x).square().sum()
    loss.backward()
    trained.optimizer.step()
    trained.optimizer.zero_grad()
    return float(loss.item())


def test_restored_training_goes_on_to_the_bit(tmp_path: Path) -> None:
    model, trained = build(0)
    for _ in range(3):
        step(model, trained)
    trained.keep_best()
    Checkpointer(tmp_path, every=0).save(trained.capture())
    expected = [step(model, trained) for _ in range(3)]

    other_model, other = build(1)
    random.random(), np.random.rand(), torch.rand(3)
    state = checkpoint.load(tmp_path)
    assert state is not None
    other.restore(state)
    assert [step(other_model, other) for _ in range(3)] == expected
    assert all((a == b).all() for a, b in zip(model.parameters(), other_model.parameters(), strict=True))
    assert other.best is not None and other.best.keys() == trained.weights.keys()


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert checkpoint.load(tmp_path) is None


def test_a_checkpoint_holds_no_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "owned",))

    torch.save({"x": Evil()}, tmp_path / checkpoint.FILE)
    with pytest.raises(Exception, match="Weights only load failed"):
        checkpoint.load(tmp_path)
    assert not (tmp_path / "owned").exists()


def test_a_cut_off_save_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saver = Checkpointer(tmp_path, every=0)
    saver.save({"step": 1})
    monkeypatch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        saver.save({"step": 2})
    assert checkpoint.load(tmp_path) == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == [checkpoint.FILE]


def test_saving_costs_at_most_two_percent(tmp_path: Path) -> None:
    saver = Checkpointer(tmp_path, every=0)
    saver.save({"x": torch.zeros(2_000_000)})
    assert not saver.due()
    assert saver.wait > 0
    patient = Checkpointer(tmp_path, every=60)
    patient.save({"x": torch.zeros(1)})
    assert patient.wait >= 60
