"""Damaged model folders: each loads and works, or ends in one line, at once, and nothing in it is run."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from loralab.backbones.reading import encoding
from loralab.backbones.vocabulary import check_ids
from loralab.errors import UserError
from tests.backbones.checkpoints import find, take
from tests.backbones.damaged import DAMAGES, PWNED
from tests.families import FAMILIES, save_checkpoint

SECONDS = 20
GATE = (
    "config.json deep", "config num_hidden_layers 0", "config num_attention_heads 0", "config hidden_act 'x'",
    "config return_dict is False", "header F99", "header rows", "bin of text", "bin with a bomb",
    "index without metadata",
    "tokenizer setting model_max_length 'x'", "config vocab_size 1000000000", "model.safetensors cut to 0.5",
)  # fmt: skip
REST = tuple(name for name in DAMAGES if name not in GATE)


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(FAMILIES["bert"]().base_model, tmp_path_factory.mktemp("healthy") / "bert")


@pytest.fixture
def limited() -> Iterator[None]:
    def end(*_: Any) -> None:
        raise KeyboardInterrupt(f"longer than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def outcome(folder: Path, tmp_path: Path) -> str:
    """`works` if the folder loads and classifies two texts; else the line that refuses it."""
    try:
        backbone = take(find(folder, tmp_path / "digests"))
        with encoding(backbone.source):
            texts = backbone.tokenizer(["w7 w8 w9", "w20"], padding=True, return_tensors="pt")
        check_ids(backbone, [texts["input_ids"].numpy()])
        with torch.no_grad():
            logits = backbone.model(**texts).logits
        assert logits.shape == (2, 3)
        assert bool(logits.isfinite().all())
    except UserError as error:
        return str(error)
    return "works"


def check(name: str, healthy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder, work = tmp_path / "m", tmp_path / "work"
    folder.mkdir()
    work.mkdir()
    for file in healthy.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    DAMAGES[name](folder)
    before = sorted(path.name for path in folder.iterdir())
    monkeypatch.chdir(work)  # where PWNED would be written
    said = outcome(folder, tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == before
    assert not (work / PWNED).exists()
    assert list(work.iterdir()) == []
    if said != "works":
        assert said.startswith("model.path: ")
        assert "\n" not in said
        assert len(said) < 1000
    return said


@pytest.mark.usefixtures("limited")
@pytest.mark.parametrize("name", GATE)
def test_a_damaged_folder_works_or_is_one_line(
    name: str, healthy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    said = check(name, healthy, tmp_path, monkeypatch)
    assert capfd.readouterr() == ("", "")
    assert (said == "works") == (name == "config return_dict is False"), said


@pytest.mark.slow
@pytest.mark.usefixtures("limited")
@pytest.mark.parametrize("name", REST)
def test_every_other_damage_too(
    name: str, healthy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    check(name, healthy, tmp_path, monkeypatch)
    assert capfd.readouterr() == ("", "")


def test_there_are_260_damages_and_the_healthy_folder_works(healthy: Path, tmp_path: Path) -> None:
    assert len(DAMAGES) >= 260
    started = time.thread_time()
    assert outcome(healthy, tmp_path) == "works"
    assert time.thread_time() - started < 5
