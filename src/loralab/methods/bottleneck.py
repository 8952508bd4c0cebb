"""Bottleneck adapters: h + up(act(down(h))) after the maps that end a block's sublayers.

Houlsby et al. 2019, section 2.1: after every sublayer's projection, before the residual sum; the norms are trained too.
Pfeiffer et al. 2021: after the MLP only (Adapter-P in the LoRA paper, whose Adapter-L, with an additional norm, is Lin
et al. 2020). Because of the nonlinearity between down and up they cannot be merged into the frozen maps, unlike LoRA
(LoRA, Table 1).
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from loralab.errors import UserError
from loralab.methods.lora import shape_of
from loralab.methods.targets import RoleMap

__all__ = ["Bottleneck", "attach", "bottlenecks"]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": nn.functional.gelu,
    "relu": nn.functional.relu,
    "tanh": torch.tanh,
}
# Houlsby et al., section 3.1: standard deviation of a normal that is truncated at two standard deviations.
DEVIATION = 1e-2


class Bottleneck(nn.Module):
    """h + up(act(down(h))): down (size, d), up (d, size), both with biases; 2 size d + size + d parameters.

    The parameters are in fp32; the products run in the precision of h. up = 0 at the start, so that h does not change.
    """

    parameter_roles: ClassVar[dict[str, str]] = {
        "down": "weight",
        "down_bias": "bias",
        "up": "weight",
        "up_bias": "bias",
    }

    def __init__(self, d: int, *, size: int, activation: str, generator: torch.Generator) -> None:
        super().__init__()
        down = torch.empty(size, d)
        nn.init.trunc_normal_(down, std=DEVIATION, a=-2 * DEVIATION, b=2 * DEVIATION, generator=generator)
        self.down = nn.Parameter(down)
        self.down_bias = nn.Parameter(torch.zeros(size))
        self.up = nn.Parameter(torch.zeros(d, size))
        self.up_bias = nn.Parameter(torch.zeros(d))
        self.activation = ACTIVATIONS[activation]

    def forward(self, _host: nn.Module, _inputs: Sequence[object], h: Tensor) -> Tensor:
        """h + up(act(down(h))); a forward hook, called with the host module, its inputs and its output h (..., d)."""
        narrow = self.activation(nn.functional.linear(h, self.down.to(h.dtype), self.down_bias.to(h.dtype)))
        return h + nn.functional.linear(narrow, self.up.to(h.dtype), self.up_bias.to(h.dtype))


def attach(
    model: nn.Module,
    maps: Sequence[RoleMap],
    *,
    head: Sequence[str],
    placement: Literal["houlsby", "pfeiffer"],
    size: int,
    activation: Literal["gelu", "relu", "tanh"],
    seed: int,
) -> None:
    """Adds an adapter after the last map of each sublayer (houlsby) or of each MLP (pfeiffer) of a frozen `model`.

    Pfeiffer's adapter reads the MLP's output here too; in AdapterHub it reads the norm of the residual sum, which
    exists only in post-norm blocks. houlsby also trains every norm outside `head`, in place and in fp32, as the paper
    and its code do ("new layer normalization parameters per task").
    The adapters are drawn on the CPU from `seed` in the order of `maps`. No module is replaced: an adapter is its
    host's `bottleneck`, called by a forward hook, before the host's dropout.
    Raises UserError for a model whose maps have no known roles.
    """
    if not maps:
        raise UserError(
            f"method.name: {placement} puts its adapters after the maps of roles o and mlp, and this model's roles are "
            "not known; method=lora takes globs over module names (lora.targets), and method=full needs no roles"
        )
    generator = torch.Generator().manual_seed(seed)
    for name in _places(model, maps, placement):
        host: Any = model.get_submodule(name)
        adapter = Bottleneck(_width(host), size=size, activation=activation, generator=generator)
        host.bottleneck = adapter.to(host.weight.device).train(host.training)
        host.register_forward_hook(host.bottleneck)
    if placement == "houlsby":
        for name, module in list(model.named_modules()):
            if _is_norm(module) and not any(name == h or name.startswith(f"{h}.") for h in head):
                _train_norm(module)


def bottlenecks(model: nn.Module) -> dict[str, Bottleneck]:
    """Every adapter of `model`, by the name of the map before it."""
    return {
        name.removesuffix(".bottleneck"): module
        for name, module in model.named_modules()
        if isinstance(module, Bottleneck)
    }


def _places(model: nn.Module, maps: Sequence[RoleMap], placement: str) -> list[str]:
    """The map that ends each sublayer: `o`, and the last map of an MLP whose output has the block's width.

    In module order, the maps of an MLP are consecutive and follow those of attention. The MLP's other maps have the
    width of the inner layer (the gate of a gated MLP, or both halves in one). It may equal the block's, hence the last.
    """
    places = []
    width = 0  # of the block: the output width of its attention
    for is_mlp, run in itertools.groupby(maps, key=lambda m: m.role == "mlp"):
        if is_mlp:
            ends = [m.name for m in run if _width(model.get_submodule(m.name)) == width]
            assert ends, "no map of an MLP leads back to the block's width"
            places.append(ends[-1])
        else:
            outputs = [m.name for m in run if m.role == "o"]
            width = _width(model.get_submodule(outputs[-1]))
            places += outputs if placement == "houlsby" else []
    return places


def _width(host: nn.Module) -> int:
    _cls, _d_in, d_out = shape_of(host)
    return d_out


def _is_norm(module: nn.Module) -> bool:
    """Whether the weight is a vector, as only in norms; some families define their own norm classes (T5, Llama)."""
    weight = module._parameters.get("weight")
    return weight is not None and weight.ndim == 1


def _train_norm(norm: nn.Module) -> None:
    """Makes gain and bias fp32 and trainable; a norm of another dtype computes in fp32 and returns its own dtype.

    In bf16, a gain near 1 has steps of 1/128, so training would not change it. The norm's initial outputs are the same
    bits; those of T5 and Llama-like families, which in bf16 round before the gain, are the same up to rounding.
    """
    dtype = cast(Tensor, norm.weight).dtype
    norm.float().requires_grad_(True)
    norm.parameter_roles = dict.fromkeys(norm._parameters, "norm")  # type: ignore[assignment]  # torch's own typing
    if dtype != torch.float32:
        norm.register_forward_pre_hook(_into_fp32)
        norm.register_forward_hook(functools.partial(_out_of_fp32, dtype))


def _into_fp32(_norm: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(x.float() for x in inputs)


def _out_of_fp32(dtype: torch.dtype, _norm: nn.Module, _inputs: tuple[Tensor, ...], y: Tensor) -> Tensor:
    return y.to(dtype)
