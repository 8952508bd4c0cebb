"""The last layer for the first token only has the outputs and gradients of the full layer, with less work."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from loralab.backbones.families import family_of
from loralab.backbones.first_token import narrow_last_layer
from loralab.backbones.load import load
from loralab.backbones.source import locate
from loralab.methods.lora import merge
from tests.adapted import adapt, shake
from tests.families import ALL, FAMILIES, MODEL_TYPES, PAD, VOCABULARY

READ_THE_FIRST = [name for name in ALL if family_of(MODEL_TYPES[name]).first_token]
OTHERS = sorted(ALL.keys() - set(READ_THE_FIRST))
families = pytest.mark.parametrize("family", READ_THE_FIRST)


def batch(length: int) -> dict[str, Tensor]:
    """Three texts: of all, half and all but one of the positions."""
    ids = torch.randint(3, VOCABULARY, (3, length), generator=torch.Generator().manual_seed(length))
    mask = torch.ones_like(ids)
    for row, shortest in (1, length // 2), (2, length - 1):
        ids[row, shortest:], mask[row, shortest:] = PAD, 0
    return {"input_ids": ids, "attention_mask": mask}


def pair(family: str, dtype: torch.dtype, **settings: Any) -> tuple[Any, Any]:
    """An adapted model with every trainable parameter shaken, and a narrowed copy."""
    stock = adapt(family, **settings)
    shake(stock)
    ours = deepcopy(stock.to(dtype))
    narrow_last_layer(ours)
    return stock, ours


def outcome(model: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The logits and the gradient of every trainable parameter, by name."""
    weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
    logits = model(**inputs).logits
    gradients = torch.autograd.grad(cross_entropy(logits, torch.tensor([0, 1, 2])), list(weights.values()))
    return {"logits": logits, **dict(zip(weights, gradients, strict=True))}


@families
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
# float64 holds the law. Elsewhere rounding is all that is allowed: attention of one query and of all sum in another
# order, on every processor in its own: 64 roundings one after the other in fp32, 6e-8 each; bf16 sums in fp32, and
# rounds to 4e-3 between one map and the next.
@pytest.mark.parametrize(
    ("dtype", "allowed"), [(torch.float64, 1e-12), (torch.float32, 64 * 6e-8), (torch.bfloat16, 2e-2)], ids=str
)
def test_logits_and_every_gradient_equal_the_whole_layers(
    family: str, attention: str, dtype: torch.dtype, allowed: float
) -> None:
    stock, ours = pair(family, dtype, targets=["all", "word_embeddings"], bias="all")
    for length in (4, 9, 16, 27):
        for model in (stock, ours):
            model.set_attn_implementation(attention)
        wanted, found = outcome(stock, batch(length)), outcome(ours, batch(length))
        largest = max(g.norm() for name, g in wanted.items() if name != "logits")
        for name, tensor in wanted.items():
            # a key's bias has no gradient but for rounding: softmax does not see it
            scale = tensor.norm() if name == "logits" else largest
            assert (found[name] - tensor).norm() <= allowed * scale, (name, length)


@families
@pytest.mark.parametrize("targets", [["q", "v"], ["encoder.layer.1.*"]])
def test_an_adapter_on_the_last_layer_is_trained_and_merged_as_before(family: str, targets: list[str]) -> None:
    targets = [f"*{glob}" if "." in glob else glob for glob in targets]
    stock, ours = pair(family, torch.float64, targets=targets)
    found = outcome(ours, batch(9))
    assert any("layer.1." in name and tensor.abs().sum() > 0 for name, tensor in found.items())
    merge(ours)
    merged = ours(**batch(9)).logits
    assert torch.allclose(merged, stock(**batch(9)).logits, rtol=0, atol=1e-5)


@families
def test_the_last_layer_works_on_one_position_and_the_others_on_all(family: str) -> None:
    _, ours = pair(family, torch.float32)
    seen: list[int] = []
    for layer in ours.base_model.encoder.layer:
        layer.intermediate.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    ours(**batch(9))
    assert seen == [9, 1]


@pytest.mark.parametrize("family", OTHERS)
def test_other_families_are_left_as_they_are(family: str) -> None:
    model: Any = ALL[family]()
    narrow_last_layer(model)
    assert not [name for name, module in model.named_modules() if "forward" in vars(module)]


def test_a_decoder_of_berts_shape_is_left_as_it_is() -> None:
    model: Any = FAMILIES["bert"]()
    model.config.is_decoder = True
    narrow_last_layer(model)
    assert not [name for name, module in model.named_modules() if "forward" in vars(module)]


@families
def test_names_weights_and_modules_stay_and_a_copy_is_its_own(family: str) -> None:
    stock, ours = pair(family, torch.float32)
    assert [(name, type(module)) for name, module in ours.named_modules()] == [
        (name, type(module)) for name, module in stock.named_modules()
    ]
    assert ours.state_dict().keys() == stock.state_dict().keys()
    before = ours(**batch(9)).logits
    other = deepcopy(ours)
    shake(other, seed=1)
    assert torch.equal(ours(**batch(9)).logits, before)
    assert not torch.allclose(other(**batch(9)).logits, before)
    ours.load_state_dict(other.state_dict())
    assert torch.equal(ours(**batch(9)).logits, other(**batch(9)).logits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_loaded_backbone_has_it_in_every_precision_and_attention(dtype: torch.dtype, attention: Any) -> None:
    source = locate("tiny", package=None, hub=None, revision=None, path=None, cache=Path("unused"))
    settings: dict[str, Any] = {"labels": 2, "regression": False, "dropout": 0.0, "device": "cpu", "seed": 0}
    model: Any = load(source, attention=attention, dtype=dtype, **settings).model
    with torch.no_grad():
        assert model.bert(**batch(9)).last_hidden_state.shape == (3, 1, 64)
