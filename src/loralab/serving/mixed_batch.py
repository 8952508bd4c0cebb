"""Several tasks on one backbone at once: a batch in which each row names its adapter.

y_b = W0 x_b + scaling_k B_k A_k x_b for row b with adapter k: W0 x is one product for all rows, which merged
weights do not allow (LoRA, Hu et al. 2021, section 4.2, on its limitations).
"""

import contextvars
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from loralab.errors import UserError
from loralab.methods.lora import shape_of
from loralab.methods.lora_layers import LoRAEmbedding
from loralab.serving.adapters import TaskAdapter, check_fit, place

__all__ = ["AdapterBank"]

Part = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Inputs (b, t, d_in), outputs (b, t, d_out) of the bare map and the rows' adapters (b,) -> the rows' own outputs."""


class AdapterBank:
    """`bank(names, **batch)`: the logits of a batch, row b by the adapter `names[b]`.

    Adapters may differ in ranks, maps, scaling and number of classes (the logits of classes that a row's task does not
    have are -inf). Updates of linear maps (fused ones too), the head's linear maps and trained biases are served; other
    trained parameters are refused. For K adapters there are, beside the backbone, A (K, r, d_in) and B (K, d_out, r) of
    each map that any of them adapts, with r the largest rank there, in the map's precision.
    Called itself, the model computes as before. Threads may call one bank, or several on one model, at once.
    """

    def __init__(self, model: nn.Module, adapters: Mapping[str, TaskAdapter]) -> None:
        check_fit(model, adapters, key="AdapterBank")
        self.model: Any = model
        self.device = next(model.parameters()).device
        self.places = {name: at for at, name in enumerate(adapters)}
        self._call: contextvars.ContextVar[tuple[Tensor, int] | None] = contextvars.ContextVar("call", default=None)
        placed = list(place(model, adapters).values())
        modules: dict[str, Any] = dict(model.named_modules())
        adapted = dict.fromkeys(name for adapter in placed for name in adapter.updates)
        parts = [(name, _update(name, modules[name], placed)) for name in adapted]
        for name, leaves in _trained(placed).items():
            host = modules[name]
            if leaves == {"bias"}:
                parts.append((name, _bias(name, host, placed)))
            elif isinstance(host, nn.Linear) and name not in adapted and leaves <= {"weight", "bias"}:
                parts.append((name, _whole(name, host, placed)))
            else:
                what = f"{name} ({type(host).__name__}; {', '.join(sorted(leaves))})"
                raise UserError(f"AdapterBank: {what} is trained whole, which is served for linear maps alone")
        self._hooks = [modules[name].register_forward_hook(partial(self._own, name, part)) for name, part in parts]

    def __call__(self, names: Sequence[str], **batch: Tensor) -> Tensor:
        """Logits (b, classes, of the task that has most) in fp32; `labels` are dropped.

        Raises UserError for a name that is not there, and unless there is one for each row.
        """
        strangers = [name for name in names if name not in self.places]
        if strangers:
            raise UserError(f"AdapterBank: no adapter {strangers[0]!r}; there are: {', '.join(self.places)}")
        rows = torch.tensor([self.places[name] for name in names], device=self.device)
        for key, value in batch.items():
            if len(value) != len(rows):
                raise UserError(f"AdapterBank: {len(rows)} names for {len(value)} rows of {key}; name one for each row")
        positions = batch["input_ids"].shape[1] if "input_ids" in batch else 1
        token = self._call.set((rows, len(rows) * positions))
        try:
            with torch.inference_mode():
                logits: Tensor = self.model(**{key: value for key, value in batch.items() if key != "labels"}).logits
        finally:
            self._call.reset(token)
        return logits.float()

    def close(self) -> None:
        """Removes the bank's hooks from the model."""
        for hook in self._hooks:
            hook.remove()

    def _own(self, name: str, part: Part, _host: nn.Module, inputs: tuple[Tensor, ...], y: Tensor) -> Tensor | None:
        """A forward hook: the rows' own outputs, or None (which keeps y) outside a call of the bank."""
        call = self._call.get()
        if call is None:
            return None
        (rows, flat), x = call, inputs[0]
        count = len(rows)
        # OPT flattens the rows; DeBERTa also applies its maps to relative positions, which belong to no row.
        if len(x) != count and not (x.ndim == 2 and len(x) == flat):
            raise UserError(
                f"AdapterBank: {name} computes on {tuple(x.shape)} for {count} rows, so that no row has a part of it; "
                "serve these adapters one at a time (Switch)"
            )
        own = part(x.reshape(count, -1, x.shape[-1]), y.reshape(count, -1, y.shape[-1]), rows)
        return own.reshape(*y.shape[:-1], own.shape[-1])


def _trained(adapters: Sequence[TaskAdapter]) -> dict[str, set[str]]:
    """Module -> its parameters that any adapter brings whole."""
    found: dict[str, set[str]] = {}
    for adapter in adapters:
        for at in adapter.whole:
            name, _, leaf = at.rpartition(".")
            found.setdefault(name, set()).add(leaf)
    return found


def _update(name: str, host: nn.Module, adapters: Sequence[TaskAdapter]) -> Part:
    """y + scaling B A x; an adapter that leaves the map alone, or has a lower rank, has zeros."""
    kind, d_in, d_out = shape_of(host)
    if kind is LoRAEmbedding:
        raise UserError(f"AdapterBank: {name} is an embedding, and linear maps alone are served (Switch serves it)")
    weight = cast(Tensor, host.weight)
    rank = max(len(adapter.updates[name][0]) for adapter in adapters if name in adapter.updates)
    A_kri = weight.new_zeros(len(adapters), rank, d_in)
    B_kor = weight.new_zeros(len(adapters), d_out, rank)
    for at, adapter in enumerate(adapters):
        if name in adapter.updates:
            A, B, scaling = adapter.updates[name]
            A_kri[at, : len(A)] = A
            B_kor[at, :, : len(A)] = scaling * B

    def add(x_bti: Tensor, y_bto: Tensor, rows: Tensor) -> Tensor:
        dtype = y_bto.dtype
        z_btr = torch.bmm(x_bti.to(dtype), A_kri[rows].to(dtype).transpose(1, 2))
        return torch.baddbmm(y_bto, z_btr, B_kor[rows].to(dtype).transpose(1, 2))

    return add


def _bias(name: str, host: nn.Module, adapters: Sequence[TaskAdapter]) -> Part:
    """y + b - b0: a trained bias in the place of the frozen one."""
    frozen = cast(Tensor, host.bias).detach()
    b_ko = torch.stack([a.whole.get(f"{name}.bias", frozen).float() - frozen.float() for a in adapters])
    return lambda _x, y_bto, rows: y_bto + b_ko[rows, None].to(y_bto.dtype)


def _whole(name: str, host: nn.Linear, adapters: Sequence[TaskAdapter]) -> Part:
    """W x + b with each task's own W and b in the place of the model's; -inf for the classes that it does not have."""
    weights = [adapter.whole.get(f"{name}.weight", host.weight.detach()) for adapter in adapters]
    own = host.bias.detach() if host.bias is not None else None
    biases = [adapter.whole.get(f"{name}.bias", own) for adapter in adapters]
    dtype = host.weight.dtype
    most = max(len(weight) for weight in weights)
    W_kci = host.weight.new_zeros(len(adapters), most, host.in_features)
    b_kc = torch.full((len(adapters), most), -torch.inf, dtype=dtype, device=W_kci.device)
    for at, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        W_kci[at, : len(weight)] = weight
        b_kc[at, : len(weight)] = 0 if bias is None else bias

    def replace(x_bti: Tensor, _y: Tensor, rows: Tensor) -> Tensor:
        return torch.baddbmm(b_kc[rows, None], x_bti.to(dtype), W_kci[rows].transpose(1, 2))

    return replace
