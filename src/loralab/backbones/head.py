"""The trainable head of a classifier: which modules belong to it, and their initialisation."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from loralab.backbones.source import Source
from loralab.compat.transformers import initialise
from loralab.errors import UserError

__all__ = ["head_of", "prepare_head"]


def head_of(model: Any, absent: frozenset[str], source: Source) -> tuple[str, ...]:
    """Paths of the head's modules: those outside the base model, and a pooler that the checkpoint lacks."""
    prefix = model.base_model_prefix
    head = [
        _narrow(name, child)
        for name, child in model.named_children()
        if name != prefix and any(True for _ in child.parameters())
    ]
    inside = sorted(name for name in absent if name.startswith(f"{prefix}."))
    lost = [name for name in inside if "pooler" not in name.split(".")]
    if lost:
        raise UserError(
            f"{source.key}: {source.origin} lacks {len(lost)} tensors of a {source.family!r} model, or has them in "
            f"another shape: {lost[0]}{', ...' if len(lost) > 1 else ''}; give a whole checkpoint whose config.json "
            "fits its weights"
        )
    poolers = {name[: name.index("pooler") + len("pooler")] for name in inside}
    head.extend(_narrow(name, model.get_submodule(name)) for name in sorted(poolers))
    return tuple(head)


def _narrow(name: str, module: nn.Module) -> str:
    """Descends while one child holds all parameters: DeBERTa's pooler -> pooler.dense."""
    while not list(module.parameters(recurse=False)):
        holders = [(inner, child) for inner, child in module.named_children() if list(child.parameters())]
        if len(holders) != 1:
            break
        name, module = f"{name}.{holders[0][0]}", holders[0][1]
    return name


def prepare_head(model: Any, head: Sequence[str], absent: frozenset[str], seed: int) -> None:
    """Makes the head fp32 and trainable, and draws from `seed` the tensors that the checkpoint lacks."""
    torch.manual_seed(seed)
    for path in head:
        module = model.get_submodule(path).float().requires_grad_(True)
        brought = {n: p.detach().clone() for n, p in module.named_parameters() if f"{path}.{n}" not in absent}
        initialise(model, module)
        with torch.no_grad():
            for name, value in brought.items():
                module.get_parameter(name).copy_(value)
        for part in module.modules():
            if list(part.parameters(recurse=False)):
                part.register_forward_pre_hook(_to_own_dtype)


def _to_own_dtype(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Casts the inputs to the module's dtype: the head is fp32, the backbone may not be; autocast applies later."""
    dtype = next(module.parameters(recurse=False)).dtype
    return tuple(a.to(dtype) if isinstance(a, Tensor) and a.is_floating_point() else a for a in arguments)
