"""Logits at the targets only are those of the whole text there, with their gradients, beside virtual tokens too."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from loralab.backbones.families import linear_maps
from loralab.backbones.target_logits import computes_at_targets
from loralab.methods import prompts
from loralab.methods.lora import attach
from loralab.training.evaluate import forward
from loralab.training.likelihood import token_losses
from loralab.training.threads import Workers
from tests.adapted import LORA, shake
from tests.generators import CAUSAL, GENERATORS, pairs

ROWS = 5


def batch(*, at_targets: bool) -> dict[str, Tensor]:
    made = pairs(ROWS, seq2seq=False)(np.arange(ROWS))
    return {**made, "logits_to_keep": made["labels"] != -100} if at_targets else made


def outcome(model: Any, *, at_targets: bool) -> list[Tensor]:
    """The logits at the targets, and the gradients of their mean loss."""
    inputs = batch(at_targets=at_targets)
    told = inputs["labels"] != -100
    logits = forward(model, inputs)
    logits = logits if at_targets else logits[told]
    trained = [p for p in model.parameters() if p.requires_grad]
    return [logits.detach(), *torch.autograd.grad(cross_entropy(logits, inputs["labels"][told]), trained)]


def same(found: list[Tensor], wanted: list[Tensor]) -> None:
    largest = max(float(g.abs().max()) for g in wanted)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6 * largest)


def needs_it(model: Any) -> None:
    if not computes_at_targets(model):
        pytest.skip("this release of transformers computes logits at every position")


@pytest.mark.parametrize("family", CAUSAL)
def test_logits_losses_and_gradients_are_those_of_the_whole_text(family: str) -> None:
    model = GENERATORS[family]().requires_grad_(False)
    needs_it(model)
    attach(model, linear_maps(model), head=(), **LORA)
    shake(model)
    same(outcome(model, at_targets=True), outcome(model, at_targets=False))
    sums = []
    for at_targets in (True, False):
        with Workers(1) as workers:
            losses, numbers = token_losses(
                model, [np.arange(ROWS)], lambda _, at=at_targets: batch(at_targets=at),  # type: ignore[misc]
                rows=ROWS, check=lambda: None, workers=workers,
            )  # fmt: skip
        assert numbers.sum() == (batch(at_targets=False)["labels"] != -100).sum()
        sums.append(losses)
    np.testing.assert_allclose(sums[0], sums[1], rtol=1e-5)


@pytest.mark.parametrize("kind", ["prompt", "prefix"])
def test_virtual_tokens_shift_no_target(kind: Any) -> None:
    model = GENERATORS["llama"]().requires_grad_(False)
    needs_it(model)
    prompts.attach(model, head=(), kind=kind, tokens=3, hidden=None, seed=0)
    same(outcome(model, at_targets=True), outcome(model, at_targets=False))


def test_only_the_targets_reach_the_output_matrix() -> None:
    model: Any = GENERATORS["llama"]()
    needs_it(model)
    seen: list[int] = []
    model.lm_head.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[:-1].numel()))
    inputs = batch(at_targets=True)
    with torch.no_grad():
        forward(model, inputs)
    assert seen == [int((inputs["labels"] != -100).sum())] and seen[0] < inputs["labels"].numel()


def test_a_family_or_release_without_it_is_recognised() -> None:
    assert not computes_at_targets(GENERATORS["t5"]())
    model: Any = GENERATORS["llama"]()
    stock = model.forward

    def ignores(*given: Any, logits_to_keep: Any = 0, **named: Any) -> Any:  # a simulated release
        return stock(*given, **named)

    def refuses(*given: Any, **named: Any) -> Any:
        raise IndexError("too many indices")

    model.forward = ignores
    assert not computes_at_targets(model)
    model.forward = lambda *given, **named: (refuses if "logits_to_keep" in named else stock)(*given, **named)
    assert not computes_at_targets(model)
