"""BitFit trains every bias of the backbone, and a trained update acts as a bias."""

from typing import Any

import pytest
import torch

from loralab.errors import UserError
from loralab.methods.bitfit import attach
from loralab.methods.lora import bias_updates
from loralab.training.optim import adamw, param_groups, param_roles
from tests.adapted import frozen, head_of, logits, shake
from tests.families import FAMILIES, MORE_FAMILIES, example_batch

NONE = ("llama", "t5", "mistral", "phi3", "gemma", "gemma2", "qwen3", "modernbert", "mt5", "mpt")
ALONE = {"qwen2": {"bias"}, "falcon": {"norm"}}
WITH_BIASES = [family for family in FAMILIES | MORE_FAMILIES if family not in NONE]
families = pytest.mark.parametrize("family", WITH_BIASES)


def adapted(family: str, dtype: torch.dtype = torch.float32) -> Any:
    model: Any = frozen(family)
    if dtype != torch.float32:
        model.base_model.to(dtype)
        for name in head_of(model):
            head = model.get_submodule(name)
            head.register_forward_pre_hook(lambda _module, inputs: tuple(x.float() for x in inputs))
    attach(model, head=head_of(model))
    return model


def biases(family: str) -> dict[str, torch.Tensor]:
    return {n: p for n, p in frozen(family).named_parameters() if n.endswith(".bias") and not p.requires_grad}


@families
def test_it_starts_at_the_backbone(family: str) -> None:
    assert torch.equal(logits(adapted(family)), logits(frozen(family)))


@families
def test_trained_are_the_backbones_biases_and_the_head(family: str) -> None:
    model = adapted(family)
    own = biases(family)
    roles = param_roles(model, head_of(model))
    updates = {name: role for name, role in roles.items() if role != "head"}
    assert set(updates) == {name.removesuffix("bias") + "bias_update.b" for name in own}
    assert sum(model.get_parameter(name).numel() for name in updates) == sum(p.numel() for p in own.values())
    assert set(updates.values()) == ALONE.get(family, {"bias", "norm"})
    heads = {name for name, p in frozen(family).named_parameters() if p.requires_grad}
    assert {name for name, role in roles.items() if role == "head"} == heads


@families
def test_a_trained_update_is_the_bias_moved_by_it(family: str) -> None:
    model, moved = adapted(family), frozen(family)
    shake(model)
    with torch.no_grad():
        for name, (_, update) in bias_updates(model).items():
            moved.get_submodule(name).bias += update.b
        for name in head_of(model):
            moved.get_submodule(name).load_state_dict(model.get_submodule(name).state_dict())
    torch.testing.assert_close(logits(model), logits(moved), rtol=1e-5, atol=1e-5)
    assert (logits(model) - logits(frozen(family))).abs().max() > 1e-2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", ["gpt_neox", "gpt2", "qwen2"])  # BERT's softmax does not see its keys' bias
def test_a_small_step_moves_what_is_trained_and_nothing_else(family: str, dtype: torch.dtype) -> None:
    model = adapted(family, dtype)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    groups = param_groups(
        model, head=head_of(model), lr=1e-4, ratio=1.0, head_lr=None, embedding_lr=1e-4, weight_decay=0.1
    )
    optimizer = adamw(groups, betas=(0.9, 0.999), eps=1e-8)
    model(**example_batch(model)).loss.backward()
    optimizer.step()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name, p in model.named_parameters() if p.requires_grad}
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}


@families
def test_a_row_has_its_logits_whatever_its_company(family: str) -> None:
    model = adapted(family)
    shake(model)
    ids = example_batch(model)["input_ids"]
    with torch.no_grad():
        rows = [model(input_ids=row, attention_mask=torch.ones_like(row)).logits for row in (ids[:1], ids[1:, :7])]
    torch.testing.assert_close(logits(model), torch.cat(rows), rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", NONE)
def test_a_backbone_without_biases_is_refused_in_one_line(family: str) -> None:
    model = frozen(family)
    with pytest.raises(UserError, match=r"^method\.name: bitfit .* this one has none .* method=lora") as refusal:
        attach(model, head=head_of(model))
    assert "\n" not in str(refusal.value)
    assert bias_updates(model) == {}
