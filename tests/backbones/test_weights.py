"""Weights on disk: every format loads the same weights; damaged, unsafe or unsuitable files raise UserError."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel

from loralab.errors import UserError
from tests.backbones.checkpoints import find, take
from tests.families import FAMILIES, save_checkpoint


def test_half_checkpoint_is_loaded_in_fp32_when_asked(bert: Path, tmp_path: Path) -> None:
    weights = bert / "model.safetensors"
    halves = {name: tensor.bfloat16() for name, tensor in load_file(weights).items()}
    save_file(halves, weights, metadata={"format": "pt"})
    config = AutoConfig.from_pretrained(bert)
    config.dtype = "bfloat16"
    config.save_pretrained(bert)
    model = take(find(bert, tmp_path)).model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    name = "embeddings.word_embeddings.weight"
    assert torch.equal(model.get_parameter(f"bert.{name}"), halves[name].float())


def test_bin_weights_load_and_equal_safetensors(bert: Path, tmp_path: Path) -> None:
    expected = dict(take(find(bert, tmp_path)).model.named_parameters())
    torch.save(load_file(bert / "model.safetensors"), bert / "pytorch_model.bin")
    (bert / "model.safetensors").unlink()
    source = find(bert, tmp_path)
    assert not source.safetensors
    assert all(torch.equal(p, expected[name]) for name, p in take(source).model.named_parameters())


def test_shards_load_and_a_missing_shard_is_named(tmp_path: Path) -> None:
    model = FAMILIES["bert"]()
    directory = save_checkpoint(model.base_model, tmp_path / "sharded")
    (directory / "model.safetensors").unlink()
    model.base_model.save_pretrained(directory, max_shard_size="30KB")
    shards = sorted(directory.glob("model-*.safetensors"))
    assert len(shards) > 1
    loaded = take(find(directory, tmp_path)).model
    assert torch.equal(loaded.get_parameter("bert.pooler.dense.weight"), model.bert.pooler.dense.weight)
    shards[0].unlink()
    with pytest.raises(UserError, match=rf"^model.path: .* lacks 1 of {len(shards)} weight files: {shards[0].name}"):
        find(directory, tmp_path)


class Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("zipped", [True, False])
def test_unsafe_pickle_is_refused_and_never_run(bert: Path, tmp_path: Path, zipped: bool) -> None:
    (bert / "model.safetensors").unlink()
    target = tmp_path / "ran"
    content = {"weight": torch.zeros(2), "extra": Bomb(target)}
    if zipped:
        torch.save(content, bert / "pytorch_model.bin")
    else:
        (bert / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(target)))
    with pytest.raises(UserError, match=r"^model.path: .*never unpickled") as info:
        take(find(bert, tmp_path))
    assert "\n" not in str(info.value)
    assert not target.exists()


def test_cut_off_bin_is_one_line(bert: Path, tmp_path: Path) -> None:
    torch.save(load_file(bert / "model.safetensors"), bert / "pytorch_model.bin")
    (bert / "model.safetensors").unlink()
    whole = (bert / "pytorch_model.bin").read_bytes()
    (bert / "pytorch_model.bin").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"^model.path: .*(damaged|cannot be loaded)") as info:
        take(find(bert, tmp_path))
    assert "\n" not in str(info.value)


@pytest.mark.parametrize("defect", ["lost", "shape"])
def test_incomplete_or_ill_fitting_weights_are_refused_by_name(bert: Path, tmp_path: Path, defect: str) -> None:
    weights = bert / "model.safetensors"
    tensors = load_file(weights)
    name = "encoder.layer.1.output.dense.weight"
    if defect == "lost":
        del tensors[name]
    else:
        tensors[name] = torch.zeros(7, 7)
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(UserError, match=rf"^model.path: .* lacks 1 tensors of a 'bert' model.*bert\.{name}"):
        take(find(bert, tmp_path))


def test_checkpoint_without_pooler_trains_a_new_one(bert: Path, tmp_path: Path) -> None:
    weights = bert / "model.safetensors"
    tensors = {name: t for name, t in load_file(weights).items() if "pooler" not in name}
    save_file(tensors, weights, metadata={"format": "pt"})
    backbone = take(find(bert, tmp_path))
    assert set(backbone.head) == {"classifier", "bert.pooler.dense"}
    assert backbone.model.get_parameter("bert.pooler.dense.weight").std().item() == pytest.approx(0.02, rel=0.2)


def test_family_that_cannot_classify_is_refused_by_name(bert: Path, tmp_path: Path) -> None:
    AutoConfig.for_model("vit", hidden_size=32).save_pretrained(bert)
    with pytest.raises(UserError, match=r"^model.path: .* 'vit' model, which cannot classify.*; .*model=minilm"):
        take(find(bert, tmp_path))


def test_classifying_family_without_known_roles_loads_with_no_maps(bert: Path, tmp_path: Path) -> None:
    config = AutoConfig.for_model(
        "nystromformer",
        hidden_size=16,
        num_attention_heads=2,
        num_hidden_layers=1,
        intermediate_size=16,
        vocab_size=100,
    )
    AutoModel.from_config(config).save_pretrained(bert)
    backbone = take(find(bert, tmp_path))
    assert backbone.maps == ()
    assert backbone.head == ("classifier",)
