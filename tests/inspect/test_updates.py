"""Trained updates, written by loralab or PEFT; the initial updates; and the pretrained W."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from loralab.errors import UserError
from loralab.inspect.updates import Update, find_adapter, frozen_weights, initial_updates, read_updates
from loralab.methods.lora import lora_modules
from loralab.runs.run import run
from loralab.store.run_directory import RunDirectory
from tests.adapted import adapt, head_of, shake
from tests.families import FAMILIES, save_checkpoint
from tests.small_runs import config

# PEFT 0.21 reads an attribute that transformers 5.23 has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def delta(update: Update) -> Any:
    return update.scaling * update.B @ update.A


def by_peft(family: str, directory: Path, **settings: Any) -> Any:
    """A PEFT model far from its initial weights, saved by PEFT."""
    from peft import LoraConfig, get_peft_model

    base = save_checkpoint(FAMILIES[family](), directory / "base")
    model = type(FAMILIES[family]()).from_pretrained(base)
    theirs = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=4, lora_alpha=9, **settings))
    shake(theirs)
    theirs.save_pretrained(directory / "adapter")
    return theirs


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("bert", {"target_modules": ["query", "dense"], "alpha_pattern": {"query": 2}, "rank_pattern": {"query": 3}}),
        ("bert", {"target_modules": ["value"], "use_rslora": True}),
        ("gpt2", {"target_modules": ["c_attn", "c_proj"], "rank_pattern": {"c_attn": 5}, "fan_in_fan_out": True}),
        ("t5", {"target_modules": ["q", "wo"]}),
        ("bert", {"target_modules": ["query", "word_embeddings"]}),
    ],
    ids=["patterns", "rslora", "conv1d", "t5", "embedding"],
)
@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`:UserWarning")  # PEFT warns about adapted tables
def test_the_updates_and_weights_of_a_peft_folder_are_those_that_peft_merges(
    family: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    theirs = by_peft(family, tmp_path, **settings)
    adapter = find_adapter(tmp_path, str(tmp_path / "adapter"))
    assert (adapter.name, adapter.run) == ("adapter", None)
    weights, checked = adapter.weights(), 0
    for name, layer in theirs.base_model.model.named_modules():
        if not hasattr(layer, "get_delta_weight"):
            continue
        inputs_first = name.endswith(("c_attn", "c_proj", "word_embeddings"))
        expected, base = layer.get_delta_weight("default").detach(), layer.get_base_layer().weight.detach()
        update = adapter.updates[name]
        np.testing.assert_allclose(delta(update), expected.T if inputs_first else expected, atol=1e-5)
        assert np.array_equal(weights[name], base.T if inputs_first else base), name
        assert update.rank == layer.r["default"]
        checked += 1
    assert checked == len(adapter.updates) == len(weights) > 0


def test_parts_of_a_fused_projection_are_one_update_of_its_rows(tmp_path: Path) -> None:
    from loralab.methods.formats.peft_lora import save_peft

    model = adapt("gpt_neox", targets=["q", "v"], rank=3)
    shake(model)
    save_peft(model, tmp_path, head=head_of(model), base_model="somewhere")
    updates = read_updates(tmp_path)
    for name, module in lora_modules(model).items():
        assert updates[name].rank == 6
        np.testing.assert_allclose(delta(updates[name]), module.delta(), atol=1e-5)


def test_half_precision_factors_are_read(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    by_peft("bert", tmp_path, target_modules=["query"])
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    whole = read_updates(tmp_path / "adapter")
    save_file({key: value.bfloat16() for key, value in load_file(file).items()}, file)
    for name, update in read_updates(tmp_path / "adapter").items():
        assert update.A.dtype == np.float32
        np.testing.assert_allclose(update.A, whole[name].A, rtol=2**-8)


def test_a_runs_updates_and_weights_go_by_its_directory_name_hash_or_adapter(finished: RunDirectory) -> None:
    store = finished.path.parent.parent
    for name in (finished.path.name, finished.hash, str(finished.path), str(finished.adapter)):
        adapter = find_adapter(store, name)
        assert (adapter.name, adapter.run) == (finished.path.name, finished)
        assert list(adapter.updates) == list(read_updates(finished.adapter))
    assert list(adapter.updates) == [
        f"bert.encoder.layer.{layer}.attention.self.{role}" for layer in (0, 1) for role in ("query", "value")
    ]
    weights = adapter.weights()
    assert {weight.shape for weight in weights.values()} == {(64, 64)}
    query, value, *_ = weights.values()
    assert not np.array_equal(query, value)


@pytest.mark.parametrize("init", ["A", "B"])
def test_the_initial_updates_are_bit_for_bit_what_training_began_with(init: str, tmp_path: Path) -> None:
    """At rates too small to change an fp32 number, the trained factors equal the initial ones."""
    run(config(tmp_path, "optim.lr=1e-30", "lora.ratio=1", f"lora.init={init}", "train.steps=2", "seed=3"))
    (path,) = (tmp_path / "runs").iterdir()
    started, ended = initial_updates(RunDirectory(path)), read_updates(path / "adapter")
    assert started.keys() == ended.keys()
    for name, update in started.items():
        random, zero = ("A", "B") if init == "A" else ("B", "A")
        assert np.array_equal(getattr(update, random), getattr(ended[name], random))
        assert getattr(update, random).any() and not getattr(update, zero).any()
        assert update.scaling == ended[name].scaling


def test_the_frozen_weights_of_two_runs_are_the_same_and_their_initial_factors_follow_the_seed(
    finished: RunDirectory, tmp_path: Path
) -> None:
    run(config(tmp_path, "seed=5", "train.steps=1"))
    other = RunDirectory(next((tmp_path / "runs").iterdir()))
    name = "bert.encoder.layer.1.attention.self.value"
    one, two = (frozen_weights(each, [name]) for each in (finished, other))
    assert list(one) == [name] and np.array_equal(one[name], two[name])
    assert not np.allclose(initial_updates(finished)[name].A, initial_updates(other)[name].A)


def test_training_moved_the_factors_from_their_start_but_not_far(finished: RunDirectory) -> None:
    trained = read_updates(finished.adapter)
    for name, update in initial_updates(finished).items():
        moved = np.linalg.norm(trained[name].A - update.A) / np.linalg.norm(update.A)
        assert 0 < moved < 0.5
        assert trained[name].B.any()


def test_weights_and_starts_do_not_ask_for_the_data(finished: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("loralab.tasks.packaged.fingerprint")
    monkeypatch.setattr("loralab.tasks.read", None)
    updates = read_updates(finished.adapter)
    assert frozen_weights(finished, updates).keys() == initial_updates(finished).keys() == updates.keys()


def test_a_backbone_that_has_changed_is_refused(finished: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loralab.backbones.tiny.WEIGHT_SEED", 1)
    for read in (initial_updates, lambda each: frozen_weights(each, [])):
        with pytest.raises(UserError, match=r"^model.name: random has changed since the run was trained"):
            read(finished)


def test_a_base_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    by_peft("bert", tmp_path, target_modules=["query"])
    file = tmp_path / "adapter" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": "somebody/bert"}))
    with pytest.raises(UserError, match=r"its base_model_name_or_path, 'somebody/bert', is no folder here"):
        find_adapter(tmp_path, str(tmp_path / "adapter")).weights()


def test_a_base_model_of_another_family_is_refused(tmp_path: Path) -> None:
    by_peft("bert", tmp_path, target_modules=["query"])
    shutil.rmtree(tmp_path / "base")
    save_checkpoint(FAMILIES["roberta"](), tmp_path / "base")
    with pytest.raises(UserError, match=r"base has no layer 'bert.encoder.layer.0.attention.self.query'"):
        find_adapter(tmp_path, str(tmp_path / "adapter")).weights()


def test_a_base_model_of_another_width_is_refused(tmp_path: Path) -> None:
    by_peft("bert", tmp_path, target_modules=["query"])
    adapter = find_adapter(tmp_path, str(tmp_path / "adapter"))
    narrow = {name: Update(update.A[:, 1:], update.B, update.scaling) for name, update in adapter.updates.items()}
    with pytest.raises(
        UserError, match=r"made for another model: '.*query' is \(32, 32\) in .*, and \(32, 31\) in the"
    ):
        replace(adapter, updates=narrow).weights()


def test_what_holds_no_lora_is_one_line(tmp_path: Path, finished: RunDirectory) -> None:
    store = finished.path.parent.parent
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: neither an adapter in PEFT format .* nor a run"):
        find_adapter(store, str(tmp_path / "empty"))
    with pytest.raises(UserError, match=r"^'nothing' names no run in"):
        find_adapter(store, "nothing")
    with pytest.raises(UserError, match=r"no adapter_config.json there"):
        read_updates(tmp_path / "nowhere")
    begun = RunDirectory(tmp_path / "runs" / "tiny-x-0123456789")
    begun.begin("seed: 0\n")
    with pytest.raises(UserError, match=r"has no adapter \(cut off at step 0\)"):
        find_adapter(tmp_path, "0123")


def test_adapters_that_are_not_scaling_b_a_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    by_peft("bert", tmp_path / "dora", target_modules=["query"], use_dora=True)
    with pytest.raises(UserError, match=r"its update of '.*query' is not scaling B A of two matrices: DoRA"):
        read_updates(tmp_path / "dora" / "adapter")
    by_peft("bert", tmp_path, target_modules=["query"])
    folder = tmp_path / "adapter"
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file({key: value for key, value in tensors.items() if "lora_B" not in key}, file)
    with pytest.raises(UserError, match=r"two matrices: B is missing"):
        read_updates(folder)
    save_file({key: value * torch.nan for key, value in tensors.items()}, file)
    with pytest.raises(UserError, match=r": A of '.*query' is not finite; the adapter has diverged"):
        read_updates(folder)
    save_file({key: value for key, value in tensors.items() if "lora" not in key}, file)
    with pytest.raises(UserError, match=r"no LoRA factors in its adapter_model.safetensors"):
        read_updates(folder)
    file.write_bytes(b"junk")
    with pytest.raises(UserError, match=r"its adapter_model.safetensors is damaged"):
        read_updates(folder)


def test_a_run_of_the_head_alone_has_no_updates(tmp_path: Path) -> None:
    run(config(tmp_path, "method=head", "train.steps=1"))
    (path,) = (tmp_path / "runs").iterdir()
    with pytest.raises(UserError, match=r"no LoRA factors in its adapter_model.safetensors; it adapts no map"):
        find_adapter(tmp_path, path.name)
