"""Several tasks on one backbone, one at a time: its weights are changed in place.

LoRA (Hu et al. 2021), section 4.1: W0 = W - scaling B A, then W' = W0 + scaling' B' A'. No latency is added.
"""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from loralab.backbones.quantise import dequantise_maps
from loralab.errors import UserError
from loralab.methods.formats.peft_lora import Delta
from loralab.serving.adapters import TaskAdapter, check_fit, input_first, place

__all__ = ["Switch"]


class Switch:
    """`use(name)` sets a task's merged weights, trained biases and head; `use(None)` restores the bare backbone.

    Adapters may differ in ranks, maps, scaling and number of classes. What an adapter does not bring is the backbone's.
    exact: W = W0 + scaling B A from a copy of W0, so that W depends on the task alone, bit for bit, whatever was in use
    before; the copies take `nbytes_kept` (of the adapted maps alone). Without it there is no copy, W moves by the
    difference of two updates, and each switch adds a rounding error: after 1,000 of them MiniLM's q and v are off
    by 3e-5 of their largest weight in fp32, and by .85 of it in bf16 (`loralab study switching`).
    Do not call it while another thread uses the model. Where classes differ, the model computes no loss.
    """

    def __init__(self, model: nn.Module, adapters: Mapping[str, TaskAdapter], *, exact: bool = True) -> None:
        check_fit(model, adapters, key="Switch")
        dequantise_maps(model)  # weights that are moved cannot be codes
        self.active: str | None = None
        self.adapters = place(model, adapters)
        modules: dict[str, Any] = dict(model.named_modules())
        self.hosts = {name: modules[name] for adapter in adapters.values() for name in adapter.updates}
        _untie(model, self.hosts)
        # the backbone's own parameters: while a task that brings one whole is in use, the host has the task's
        self.weights = {name: _by_output(host) for name, host in self.hosts.items()}
        self.frozen = {name: weight.clone() for name, weight in self.weights.items()} if exact else None
        names = {name for adapter in self.adapters.values() for name in adapter.whole}
        self.owners = {name: (modules[name.rpartition(".")[0]], name.rpartition(".")[2]) for name in names}
        self.own = {name: owner._parameters[leaf] for name, (owner, leaf) in self.owners.items()}
        for name in self.adapters:
            whole = self.adapters[name].whole
            for at, value in whole.items():  # in the precision that the model has there
                whole[at] = nn.Parameter(value.to(self.own[at].dtype), requires_grad=False)

    @property
    def nbytes_kept(self) -> int:
        """Of the copies of W0."""
        return sum(weight.nbytes for weight in (self.frozen or {}).values())

    def use(self, name: str | None) -> None:
        """Puts a task's adapter in the place of the one in use. Raises UserError for a name that is not there."""
        if name is not None and name not in self.adapters:
            raise UserError(f"Switch: no adapter {name!r}; there are: {', '.join(self.adapters)}")
        before = {} if self.active is None else self.adapters[self.active].updates
        after = {} if name is None else self.adapters[name].updates
        with torch.no_grad():
            for at in dict.fromkeys([*before, *after]):
                weight = self.weights[at]
                if self.frozen is not None:
                    _write(weight, self.frozen[at], after.get(at))
                else:
                    start = weight
                    if at in before:
                        A, B, scaling = before[at]
                        start = torch.addmm(weight.float(), B, A, alpha=-scaling)
                    _write(weight, start, after.get(at))
        whole = {} if name is None else self.adapters[name].whole
        for at, (owner, leaf) in self.owners.items():
            owner._parameters[leaf] = whole.get(at, self.own[at])
        self.active = name


def _write(weight: Tensor, start: Tensor, update: Delta | None) -> None:
    """weight = start + scaling B A, rounded once, to the weight's precision."""
    if update is None:
        weight.copy_(start)
        return
    A, B, scaling = update
    if weight.dtype == torch.float32:
        torch.addmm(start, B, A, alpha=scaling, out=weight)
    else:
        weight.copy_(torch.addmm(start.float(), B, A, alpha=scaling))


def _by_output(host: nn.Module) -> Tensor:
    """A view of the frozen weight as (d_out, d_in)."""
    weight = cast(Tensor, host.weight).detach()
    return weight.T if input_first(host) else weight


def _untie(model: nn.Module, hosts: Mapping[str, Any]) -> None:
    """Gives a map that shares its weight (T5's embeddings) a separate copy: a task must change this map alone."""
    users: dict[int, int] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            users[id(parameter)] = users.get(id(parameter), 0) + 1
    for host in hosts.values():
        if users[id(host.weight)] > 1:
            host.weight = nn.Parameter(host.weight.detach().clone(), requires_grad=False)
