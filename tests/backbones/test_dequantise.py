"""A GGUF file becomes a checkpoint in the cache: exact weights, made once, and made again whenever it is not whole."""

import importlib.util
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from loralab.backbones import dequantise as module
from loralab.backbones.dequantise import dequantise
from loralab.backbones.load import Backbone, load, load_generator
from loralab.backbones.source import Source, locate
from loralab.errors import UserError
from tests.gguf_files import CHAT, END, TOKENS, tiny_model, write_gguf

SETTINGS: dict[str, Any] = {"dropout": 0.0, "attention": "auto", "dtype": torch.float32, "device": "cpu"}


def find(file: Path, store: Path, *, package: str | None = None) -> Source:
    path = str(file) if package is None else None
    return locate("mine", package=package, hub=None, revision=None, path=path, cache=store / "cache")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """That of a tiny Llama, dequantised."""
    folder = tmp_path_factory.mktemp("gguf")
    found = find(write_gguf(folder / "tiny.gguf"), folder)
    dequantise(found)
    return found


@pytest.fixture
def fresh(source: Source, tmp_path: Path) -> Source:
    """The same with a cache of its own, which is empty."""
    assert source.gguf is not None
    return find(source.gguf, tmp_path)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that are made during the test."""
    folders: list[Path] = []
    convert = module._convert

    def count(source: Source, file: Path, directory: Path) -> None:
        folders.append(directory)
        convert(source, file, directory)

    monkeypatch.setattr(module, "_convert", count)
    return folders


def generator(source: Source) -> Backbone:
    return load_generator(source, **SETTINGS)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_the_weights_are_exactly_those_of_the_file(family: str, tmp_path: Path) -> None:
    backbone = generator(find(write_gguf(tmp_path / "m.gguf", family), tmp_path))
    found = backbone.model.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in tiny_model(family).state_dict().items())
    assert backbone.notes == () and backbone.unfit is None
    text = backbone.tokenizer("the thin end", return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(backbone.model(**text).logits, tiny_model(family)(**text).logits)


def test_the_tokenizer_is_the_files_with_its_chat_template(source: Source) -> None:
    tokenizer: Any = generator(source).tokenizer
    assert len(tokenizer) == len(TOKENS)
    assert tokenizer("the thin").tokens() == ["the", "Ġ", "th", "in"]
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.padding_side) == (END, END, "right")
    assert tokenizer.apply_chat_template([{"content": "the"}], tokenize=False) == f"<|im_start|>the{END}"
    assert tokenizer.chat_template == CHAT
    assert tokenizer.model_max_length == 256


def test_the_folder_is_a_plain_checkpoint_without_a_quantisation(source: Source) -> None:
    assert source.directory is not None
    plain = locate("mine", package=None, hub=None, revision=None, path=str(source.directory), cache=None)
    assert (plain.family, plain.width, plain.safetensors) == (source.family, source.width, True)
    assert source.base == plain.origin and source.origin == str(source.gguf)


def test_the_identity_is_the_files_and_locating_makes_nothing(source: Source, tmp_path: Path) -> None:
    assert source.gguf is not None
    moved = Path(shutil.copy(source.gguf, tmp_path / source.gguf.name))
    assert find(moved, tmp_path / "absent").identity == source.identity
    assert not (tmp_path / "absent").exists()
    changed = bytearray(moved.read_bytes())
    changed[-1] ^= 1
    moved.write_bytes(bytes(changed))
    assert find(moved, tmp_path / "absent").identity != source.identity


def test_a_file_in_a_package_is_found_without_an_import(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert source.gguf is not None
    (tmp_path / "held").mkdir()
    (tmp_path / "held" / "__init__.py").write_text("raise AssertionError('imported')")
    shutil.copy(source.gguf, tmp_path / "held" / "m.gguf")
    monkeypatch.syspath_prepend(tmp_path)
    found = find(Path(), tmp_path, package="held/m.gguf")
    assert (found.key, found.family, found.gguf) == ("model.package", "llama", tmp_path / "held" / "m.gguf")
    with pytest.raises(UserError, match=r"^model\.package: .*none\.gguf cannot be read: No such file"):
        find(Path(), tmp_path, package="held/none.gguf")


def test_the_second_load_makes_nothing_and_needs_no_package(
    fresh: Source, made: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    load(fresh, labels=2, regression=False, seed=0, **SETTINGS)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    generator(fresh)
    assert len(made) == 1


def test_a_cache_that_is_deleted_or_damaged_is_made_again(source: Source, made: list[Path], tmp_path: Path) -> None:
    assert source.gguf is not None and source.directory is not None
    fresh = find(source.gguf, tmp_path)
    assert fresh.directory is not None
    weights = fresh.directory / "model.safetensors"
    for damage in (
        lambda: None,
        lambda: weights.write_bytes(weights.read_bytes()[:-9]),
        lambda: (fresh.directory / "tokenizer.json").unlink(),
    ):
        shutil.copytree(source.directory, fresh.directory)
        damage()
        dequantise(fresh)
        assert weights.read_bytes() == (source.directory / "model.safetensors").read_bytes()
        shutil.rmtree(fresh.directory)
    assert len(made) == 2


def test_two_at_once_make_it_once(fresh: Source, made: list[Path]) -> None:
    threads = [threading.Thread(target=dequantise, args=(fresh,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert generator(fresh).model.num_parameters() == tiny_model().num_parameters()


def test_what_fails_half_way_leaves_nothing(fresh: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_source: Source, _file: Path, directory: Path) -> None:
        (directory / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_convert", fail)
    with pytest.raises(UserError, match=r"^store: .*cannot be written \(No space left on device\); tiny\.gguf is"):
        dequantise(fresh)
    assert fresh.directory is not None
    assert [path.suffix for path in fresh.directory.parent.iterdir()] == [".lock"]


@pytest.mark.parametrize("absent", [("gguf",), ("gguf", "accelerate")])
def test_a_package_that_is_missing_is_named(
    absent: tuple[str, ...], fresh: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in absent else object())
    with pytest.raises(UserError, match=rf"^model\.path: .*tiny\.gguf; run: pip install {' '.join(absent)}$"):
        dequantise(fresh)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"left_out": "model.layers.1.mlp.up_proj.weight"}, "lacks 1 tensors of a 'llama' model: .*up_proj"),
        ({"more": {"rope_freqs.weight": np.ones(8, dtype=np.float32)}}, r"holds 78,536 numbers, and .* has 78,528"),
    ],
)
def test_what_transformers_does_not_read_whole_is_one_line(given: dict[str, Any], said: str, tmp_path: Path) -> None:
    source = find(write_gguf(tmp_path / "m.gguf", **given), tmp_path)
    with pytest.raises(UserError, match=rf"^model\.path: .*m\.gguf:? .*{said}") as info:
        dequantise(source)
    assert "\n" not in str(info.value)


def test_a_file_that_is_cut_off_in_its_last_tensor_is_one_line(source: Source, tmp_path: Path) -> None:
    assert source.gguf is not None
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(source.gguf.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"^model\.path: .*cut\.gguf: the \w+ cannot be read: .*; is the file whole\?$"):
        dequantise(find(cut, tmp_path))
