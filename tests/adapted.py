"""Tiny classifiers with an adapter, for the tests of LoRA and of its file formats."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from loralab.backbones.families import linear_maps
from loralab.methods.lora import attach
from tests.families import ALL, VARIANTS, example_batch

__all__ = ["LORA", "adapt", "frozen", "head_of", "logits", "shake"]

LORA: dict[str, Any] = {
    "targets": ["q", "v"],
    "rank": 4,
    "alpha": 6.0,
    "scaling": "alpha/r",
    "init": "A",
    "init_dist": "kaiming",
    "dropout": 0.0,
    "bias": "none",
    "rank_pattern": {},
    "seed": 0,
}


def head_of(model: PreTrainedModel) -> tuple[str, ...]:
    """The modules outside the base model; for DeBERTa's pooler, the module that has parameters."""
    names = [name for name, child in model.named_children() if name != model.base_model_prefix]
    names = [name for name in names if list(model.get_submodule(name).parameters())]
    return tuple("pooler.dense" if name == "pooler" else name for name in names)


def frozen(family: str) -> PreTrainedModel:
    """A tiny classifier, frozen except for its head."""
    model = (ALL | VARIANTS)[family]()
    model.requires_grad_(False)
    for name in head_of(model):
        model.get_submodule(name).requires_grad_(True)
    return model


def adapt(family: str, **settings: Any) -> PreTrainedModel:
    """The classifier with LoRA on q and v, or as in `settings`."""
    model = frozen(family)
    attach(model, linear_maps(model), head=head_of(model), **{**LORA, **settings})
    return model


def shake(model: nn.Module, seed: int = 0) -> None:
    """Moves every trainable parameter far from its initial value, as training does."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))


def logits(model: Any) -> Tensor:
    """The logits of `example_batch`, in evaluation mode."""
    model.eval()
    batch = example_batch(model)
    with torch.no_grad():
        found: Tensor = model(**batch).logits
    return found
