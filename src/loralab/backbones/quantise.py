"""Frozen maps in 4 or 8 bits (QLoRA, Dettmers et al. 2023): y = x W^T + b, with W made from its codes for each product.

Nothing keeps W between the forward and the backward pass. The gradient of x is that of this W; W itself gets none.
"""

import functools
import importlib.util
import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from loralab.compat.bitsandbytes import BITS, BLOCK, dequantised, quantised
from loralab.compat.transformers import conv1d, kept_in_fp32
from loralab.errors import UserError

__all__ = ["QuantisedMap", "check_installed", "dequantise_maps", "numbers_in_codes", "quantise_maps"]


class QuantisedMap(nn.Module):
    """A linear map whose `weight` is computed when it is read; a class that also derives from the map's own class.

    codes: uint8; state: the scales, None in a map without numbers; like: no numbers, of the model's dtype, which
    `weight` takes. The scales stay in fp32 when the model's dtype changes.
    """

    bias: Tensor | None
    codes: Tensor
    like: Tensor
    state: Any
    shape: torch.Size

    @property
    def weight(self) -> Tensor:
        """The weight that the codes stand for, in the layout of the map's class; a new tensor each time."""
        return self.numbers(self.like.dtype)

    def numbers(self, dtype: torch.dtype) -> Tensor:
        if self.state is None:
            return self.codes.new_empty(self.shape, dtype=dtype)
        return dequantised(self.codes, self.state, dtype).view(self.shape)

    def forward(self, x: Tensor) -> Tensor:
        y = cast(Tensor, _Product.apply(x, self))  # type: ignore[no-untyped-call]  # untyped in torch
        return y if self.bias is None else y + self.bias

    def _apply(self, fn: Any, recurse: bool = True) -> "QuantisedMap":
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # untyped in torch
        if self.state is not None:
            self.state.to(self.codes.device)
        return self


class _Product(torch.autograd.Function):
    """x W^T, which keeps the codes for the backward pass, and not W."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, host: QuantisedMap) -> Tensor:
        ctx.host = host
        return x @ _inputs_first(host, x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (dy,) = gradients
        return dy @ _inputs_first(ctx.host, dy.dtype).T, None


def _inputs_first(host: QuantisedMap, dtype: torch.dtype) -> Tensor:
    """W^T (d_in, d_out)."""
    weight = host.numbers(dtype)
    return weight.T if isinstance(host, nn.Linear) else weight


def check_installed(kind: str | None) -> None:
    """Raises UserError, before anything is read, where maps shall be quantised and the package is not installed."""
    if kind is not None and importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(f"model.quantize={kind} needs bitsandbytes; run: pip install 'loralab[quantize]'")


def quantise_maps(
    model: Any,
    kind: str,
    *,
    head: Sequence[str],
    dtype: torch.dtype,
    device: torch.device,
    name: str,
    blank: bool = False,
) -> None:
    """Puts the linear maps of a frozen model in 4 bits (nf4) or 8 (int8), in place, and its other tensors in `dtype`.

    The codes are computed on `device`, map by map, from the numbers that the model has. Not quantised are embeddings,
    norms, the head, the matrix that maps to the vocabulary, a map that shares its weight, and one whose numbers are no
    multiple of a block. blank: a model without numbers gets codes of the right size alone. Raises UserError where no
    map is left, and where transformers keeps maps in fp32 that would be in `dtype` (name: what the user calls the
    model).
    """
    if names := kept_in_fp32(model, dtype):
        raise UserError(
            f"model.quantize: got {kind} in half precision, where transformers keeps maps of {name} in fp32 "
            f"({', '.join(names)}); set train.precision=fp32, or model.quantize=null"
        )
    maps = _maps(model, head)
    if not maps:
        raise UserError(f"model.quantize: got {kind}; {name} has no linear map that can be quantised; set it to null")
    chosen = {id(module.weight) for module in maps}
    for parameter in model.parameters():
        if not parameter.requires_grad and id(parameter) not in chosen:
            parameter.data = parameter.data.to(dtype)
    for module in maps:
        weight = module._parameters.pop("weight").detach()
        module.shape = weight.shape
        codes, module.state = _blank(weight, kind) if blank else quantised(weight.to(device).reshape(-1, BLOCK), kind)
        module.register_buffer("codes", codes, persistent=False)
        module.register_buffer("like", torch.empty(0, dtype=dtype), persistent=False)
        module.__class__ = _class_for(type(module))  # type: ignore[arg-type]  # mypy: a class has no hash
    model.config.dtype = dtype


def dequantise_maps(model: nn.Module) -> None:
    """Makes every quantised map a plain one again, with the weight that its codes stand for."""
    maps: list[Any] = [module for module in model.modules() if isinstance(module, QuantisedMap)]
    for module in maps:
        weight = module.weight
        del module._buffers["codes"], module._buffers["like"], module.state, module.shape
        module.__class__ = type(module).__bases__[1]
        module.weight = nn.Parameter(weight, requires_grad=False)


def numbers_in_codes(model: nn.Module) -> int:
    """The number of weights that a model has as codes, and that are no parameters of it."""
    return sum(module.shape.numel() for module in model.modules() if isinstance(module, QuantisedMap))


def _maps(model: Any, head: Sequence[str]) -> list[Any]:
    """The maps that can be quantised: those of exactly these classes, since a subclass may compute something else."""
    users: dict[int, int] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            users[id(parameter)] = users.get(id(parameter), 0) + 1
    output = model.get_output_embeddings()
    return [
        module
        for name, module in model.named_modules()
        if type(module) in (nn.Linear, conv1d())
        and module is not output
        and not any(name == h or name.startswith(f"{h}.") for h in head)
        and users[id(module.weight)] == 1
        and module.weight.numel() % BLOCK == 0
    ]


def _blank(weight: Tensor, kind: str) -> tuple[Tensor, None]:
    """Codes without values, as large as the true ones with their scales."""
    return torch.empty(math.ceil(weight.numel() * BITS[kind] / 8), dtype=torch.uint8, device=weight.device), None


@functools.cache
def _class_for(plain: Any) -> Any:
    """The class of a quantised map that was of the class `plain`, and counts as one still."""
    return type(f"Quantised{plain.__name__}", (QuantisedMap, plain), {})
