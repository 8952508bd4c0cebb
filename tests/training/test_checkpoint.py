"""Checkpoints: the restored state equals the captured one bit for bit."""

import os
import pickle
import random
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from loralab.errors import UserError
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


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_full_disk_is_an_os_error_and_the_old_checkpoint_stays(tmp_path: Path, share: float) -> None:
    saver, state = Checkpointer(tmp_path, every=0), {"x": torch.arange(100_000)}
    saver.save({"x": torch.zeros(1)})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * state["x"].nbytes), before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            saver.save(state)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert torch.equal((checkpoint.load(tmp_path) or {})["x"], torch.zeros(1))
    assert len(list(tmp_path.iterdir())) == 1


def test_saving_costs_at_most_two_percent(tmp_path: Path) -> None:
    saver = Checkpointer(tmp_path, every=0)
    saver.save({"x": torch.zeros(2_000_000)})
    assert not saver.due()
    assert saver.wait > 0
    patient = Checkpointer(tmp_path, every=60)
    patient.save({"x": torch.zeros(1)})
    assert patient.wait >= 60


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "a seal alone": lambda path: path.write_bytes(path.read_bytes()[-73:]),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("text"),
    "a pickle": lambda path: path.write_bytes(pickle.dumps({"step": 1})),
    "a list": lambda path: torch.save([1], path),
    "more bytes": lambda path: path.write_bytes(b"more" + path.read_bytes()),
    "fifo": _fifo,
    "folder": _folder,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_one_line_that_says_what_to_remove(
    tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    Checkpointer(tmp_path, every=0).save({"step": 1})
    damage(tmp_path / checkpoint.FILE)
    with pytest.raises(UserError, match=r"state\.pt is damaged \(.+\); remove .* to train the run from the start$"):
        checkpoint.load(tmp_path)


def test_no_flipped_bit_gives_another_state(tmp_path: Path) -> None:
    model, trained = build(0)
    step(model, trained)
    Checkpointer(tmp_path, every=0).save(trained.capture())
    path = tmp_path / checkpoint.FILE
    whole, draw = path.read_bytes(), random.Random(0)
    for _ in range(60):
        at = draw.randrange(len(whole))
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << draw.randrange(8))]) + whole[at + 1 :])
        try:
            state = checkpoint.load(tmp_path)
        except UserError:
            continue
        assert state is not None and all(torch.equal(state["weights"][n], p) for n, p in trained.weights.items())
        assert len(whole) - at <= 73


def test_a_run_that_was_lost_while_a_checkpoint_was_written_gets_none(tmp_path: Path) -> None:
    looks = iter([None, UserError("lost")])

    def check() -> None:
        if (error := next(looks)) is not None:
            raise error

    with pytest.raises(UserError, match="lost"):
        Checkpointer(tmp_path, every=0, check=check).save({"step": 1})
    assert list(tmp_path.iterdir()) == []
