"""RMSNorm as one function has the outputs and gradients of the families' own, and is undone without a trace."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from loralab.backbones.families import family_of
from loralab.backbones.rms_norm import split_norms, unite_norms
from loralab.backbones.shortcuts import use_shortcut
from tests.families import ALL, MODEL_TYPES, example_batch

LLAMA_LIKE = [name for name in ALL if family_of(MODEL_TYPES[name]).llama_like]
OTHERS = sorted({name for name in ALL if "gemma" in name} | {"t5", "gpt2", "phi"})


def united(model: Any) -> int:
    return sum("forward" in vars(module) for module in model.modules())


def outcome(model: Any, trained: list[torch.nn.Parameter]) -> list[Tensor]:
    logits = model(**example_batch(model)).logits
    loss = cross_entropy(logits.float(), torch.arange(len(logits)) % logits.shape[1])
    return [logits.detach(), *torch.autograd.grad(loss, trained)]


@pytest.mark.parametrize("family", LLAMA_LIKE)
@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float32, 1e-5), (torch.bfloat16, 6e-2)], ids=str)
def test_logits_are_the_familys_own_bit_for_bit_and_so_are_gradients_but_for_rounding(
    family: str, dtype: torch.dtype, allowed: float
) -> None:
    """The gradients of norms' weights too, which full fine-tuning trains."""
    stock: Any = ALL[family]().to(dtype)
    ours = deepcopy(stock)
    assert unite_norms(ours) and united(ours) >= 5  # two a layer, and the last
    (logits, *wanted), (our_logits, *found) = (outcome(m, list(m.parameters())) for m in (stock, ours))
    assert torch.equal(our_logits, logits)
    largest = max(float(g.norm()) for g in wanted)
    assert all(float((one - other).norm()) <= allowed * largest for one, other in zip(found, wanted, strict=True))


def test_a_norm_that_computes_in_two_precisions_keeps_them() -> None:
    """Its fp32 weight makes an fp32 output of a bf16 text, whose gradient is in bf16 again."""
    model: Any = ALL["llama"]().to(torch.bfloat16)
    norm = model.base_model.norm.float()
    x = torch.randn(2, 3, norm.weight.numel(), generator=torch.Generator().manual_seed(0)).bfloat16().requires_grad_()
    wanted = norm(x)
    gradients = torch.autograd.grad(wanted.sin().sum(), (x, norm.weight))
    unite_norms(model)
    found = norm(x)
    assert found.dtype == torch.float32 and torch.equal(found, wanted)
    for one, other in zip(torch.autograd.grad(found.sin().sum(), (x, norm.weight)), gradients, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("family", OTHERS)
def test_other_families_are_left_as_they_are(family: str) -> None:
    model = ALL[family]()
    assert not unite_norms(model) and united(model) == 0


def test_a_norm_of_another_formula_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    stock = LlamaRMSNorm.forward
    monkeypatch.setattr(LlamaRMSNorm, "forward", lambda norm, x: 2 * stock(norm, x))
    model = ALL["llama"]()
    line = use_shortcut(model, unite_norms, split_norms, name="it")
    assert line is not None and "the hidden states differ by " in line and united(model) == 0
