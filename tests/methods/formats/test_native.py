"""The native adapter format: a bit-for-bit round trip, and a UserError for adapters that do not fit."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from loralab.backbones.families import linear_maps
from loralab.errors import UserError
from loralab.methods import bitfit, bottleneck
from loralab.methods.formats import native
from loralab.methods.formats.peft_lora import save_peft
from tests.adapted import adapt, frozen, head_of, logits, shake
from tests.families import FAMILIES

METHODS = ("houlsby", "pfeiffer", "bitfit", "head")


def adapted(method: str, family: str = "bert", size: int = 4, seed: int = 0) -> Any:
    model: Any = frozen(family)
    head = head_of(model)
    if method == "bitfit":
        bitfit.attach(model, head=head)
    elif method in ("houlsby", "pfeiffer"):
        place: Any = method
        maps = linear_maps(model)
        bottleneck.attach(model, maps, head=head, placement=place, size=size, activation="gelu", seed=seed)
    return model


def save(model: Any, directory: Path, method: str = "houlsby") -> Path:
    settings = {"size": 4, "activation": "gelu"}
    native.save(
        model, directory, method=method, settings=settings, head=head_of(model), base_model="somewhere/backbone"
    )
    return directory


def weights(model: Any) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def refused(model: Any, directory: Path, message: str) -> None:
    """One line that says so, and a model that is left as it was."""
    before = weights(model)
    with pytest.raises(UserError, match=message) as refusal:
        native.load(model, directory)
    assert "\n" not in str(refusal.value)
    assert str(refusal.value).startswith(f"{directory}: ")
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in ("llama", "t5")])
def test_what_was_saved_comes_back_bit_for_bit(family: str, method: str, tmp_path: Path) -> None:
    model, other = adapted(method, family), adapted(method, family, seed=1)
    shake(model)
    shake(other, seed=2)
    native.load(other, save(model, tmp_path))
    values = weights(model)
    assert all(torch.equal(p, values[name]) for name, p in other.named_parameters())
    assert torch.equal(logits(other), logits(model))


def test_it_comes_back_beside_a_backbone_of_another_precision(tmp_path: Path) -> None:
    model, other = adapted("pfeiffer"), frozen("bert")
    shake(model)
    other.base_model.to(torch.bfloat16)
    head = head_of(other)
    bottleneck.attach(other, linear_maps(other), head=head, placement="pfeiffer", size=4, activation="gelu", seed=1)
    native.load(other, save(model, tmp_path))
    values = weights(model)
    assert all(torch.equal(p, values[name]) for name, p in other.named_parameters() if p.requires_grad)


def test_the_file_holds_every_trained_tensor_by_its_name_and_no_other(tmp_path: Path) -> None:
    model = adapted("houlsby")
    shake(model)
    found = load_file(save(model, tmp_path) / native.WEIGHTS)
    assert set(found) == {name for name, p in model.named_parameters() if p.requires_grad}
    assert all(torch.equal(value, model.get_parameter(name)) for name, value in found.items())


def test_equal_weights_give_equal_bytes_in_place_of_an_older_adapter(tmp_path: Path) -> None:
    first, second = adapted("houlsby"), adapted("houlsby")
    shake(first)
    shake(second)
    save(adapted("bitfit"), tmp_path / "two", "bitfit")
    one, two = save(first, tmp_path / "one"), save(second, tmp_path / "two")
    assert {path.name for path in two.iterdir()} == {native.CONFIG, native.WEIGHTS}
    assert all((one / name).read_bytes() == (two / name).read_bytes() for name in (native.CONFIG, native.WEIGHTS))


def test_the_description_says_what_to_build(tmp_path: Path) -> None:
    assert native.describe(save(adapted("houlsby"), tmp_path)) == {
        "format": 1,
        "method": "houlsby",
        "settings": {"size": 4, "activation": "gelu"},
        "base_model": "somewhere/backbone",
        "head": ["classifier"],
    }


def test_an_adapter_of_another_shape_or_method_is_refused_and_what_differs_is_named(tmp_path: Path) -> None:
    place = r"bert\.encoder\.layer\.0\.output\.dense"
    wide = save(adapted("pfeiffer", size=6), tmp_path / "wide", "pfeiffer")
    refused(
        adapted("pfeiffer"),
        wide,
        rf"its pfeiffer adapter does not fit the model: {place}\.bottleneck\.down: float32 \(6, 32\) in the file, "
        r"float32 \(4, 32\) in the model",
    )
    few = save(adapted("head"), tmp_path / "few", "head")
    refused(adapted("pfeiffer"), few, rf"{place}\.bottleneck\.down: none in the file, float32 \(4, 32\) in the model")
    refused(adapted("head"), wide, rf"{place}\.bottleneck\.down: float32 \(6, 32\) in the file, none in the model")
    save_file({name: value.half() for name, value in load_file(few / native.WEIGHTS).items()}, few / native.WEIGHTS)
    refused(adapted("head"), few, r"classifier\.\w+: float16 .* in the file, float32 .* in the model")


def test_another_programs_files_are_refused(tmp_path: Path) -> None:
    lora = adapt("bert")
    save_peft(lora, tmp_path / "peft", head=head_of(lora), base_model="somewhere/backbone")
    refused(adapted("houlsby"), tmp_path / "peft", r"no adapter\.json there; such an adapter has adapter\.json and")
    refused(adapted("houlsby"), tmp_path / "nowhere", r"no adapter\.json there")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"its adapter\.json is damaged"),
        ("[]", r"its adapter\.json is damaged \(it holds \[\], not an object\)"),
        ("{}", r"its adapter\.json is of format null, or lacks a key; this version reads format 1"),
        (
            '{"format": 1, "method": [], "settings": {}, "base_model": "", "head": []}',
            r"method: got \[\]; allowed: a str",
        ),
        ('{"format": 1, "method": "houlsby"}', r"or lacks a key; .* with base_model, format, head, method, settings"),
    ],
)
def test_a_damaged_description_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (save(adapted("houlsby"), tmp_path) / native.CONFIG).write_text(text)
    refused(adapted("houlsby"), tmp_path, message)


def test_a_later_format_and_cut_off_weights_are_refused(tmp_path: Path) -> None:
    config, tensors = (save(adapted("houlsby"), tmp_path) / name for name in (native.CONFIG, native.WEIGHTS))
    written = config.read_text()
    config.write_text(json.dumps(json.loads(written) | {"format": 2}))
    refused(adapted("houlsby"), tmp_path, r"is of format 2")
    config.write_text(written)
    tensors.write_bytes(tensors.read_bytes()[:-8])
    refused(adapted("houlsby"), tmp_path, r"its adapter\.safetensors is damaged")
    tensors.unlink()
    refused(adapted("houlsby"), tmp_path, r"no adapter\.safetensors there")
