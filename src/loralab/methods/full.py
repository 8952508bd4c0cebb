"""Full fine-tuning: trains every weight of the backbone, starting at the checkpoint's values; without A and B.

The weights, their gradients and the optimizer's state are in fp32 for every precision: a bf16 weight has 8
significant bits, so that an update below 1/256 of it would be lost. bf16 and fp16 apply only to matrix products, by
autocast in the forward pass and hence in its backward pass.
"""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

__all__ = ["attach"]


def attach(model: nn.Module, *, head: Sequence[str], device: torch.device, dtype: torch.dtype) -> None:
    """Makes every parameter of an fp32 `model` trainable, in place, and makes it compute in `dtype` on `device`.

    Roles: `weight` (matrices and embeddings), `bias`, and `norm` (gains and biases of norms). head: the modules whose
    role is `head`; they compute in fp32, as with an adapter, on inputs that loading casts for them.
    """
    model.requires_grad_(True)
    for module in model.modules():
        own = dict(module.named_parameters(recurse=False))
        if own:
            roles = {name: _role(module, name, p) for name, p in own.items()}
            module.parameter_roles = roles  # type: ignore[assignment]  # torch types attributes as tensors or modules
    if dtype != torch.float32:
        _compute_in(model, device, dtype, enabled=True)
        for path in head:
            _compute_in(model.get_submodule(path), device, dtype, enabled=False)


def _role(module: nn.Module, name: str, parameter: nn.Parameter) -> str:
    """The role of a parameter: `weight`, `bias` or `norm`.

    Some families define their own norm classes (T5, Llama), so every vector that is not the bias of a map is a norm's.
    """
    if parameter.ndim > 1:
        return "weight"
    is_norm = isinstance(module, (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm))
    return "bias" if name.endswith("bias") and not is_norm else "norm"


def _compute_in(module: nn.Module, device: torch.device, dtype: torch.dtype, *, enabled: bool) -> None:
    """Turns autocast on or off inside `module.forward`, in every thread that calls it (autocast is thread-local).

    The cache of cast weights is off: threads share it, and the first to finish would empty it while another sums the
    gradients of a weight that is used twice, so that equal runs would differ in their last bits.
    """
    forward = module.forward

    @functools.wraps(forward)  # transformers' generate inspects the signature for position ids
    def inside(*arguments: Any, **named: Any) -> Any:
        with torch.autocast(device.type, dtype=dtype, enabled=enabled, cache_enabled=False):
            return forward(*arguments, **named)

    module.forward = inside
