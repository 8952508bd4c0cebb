"""Several runs' adapters and heads on one copy of the frozen weights: each row of a batch goes through its run's own.

The frozen maps see one batch of all rows. A and B of the P runs are stacked, and their products are batched:
y_p = W0 x_p + s_p B_p A_p x_p, as in serving/mixed_batch.py, with gradients.

Shapes: P runs, of which k are in a batch, with n positions each; r is the largest rank, and lower ranks are padded with
zeros, which get no gradient.
"""

import copy
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from loralab.methods.lora import lora_modules
from loralab.methods.lora_layers import Factors
from loralab.training.evaluate import forward

__all__ = ["PackedModel", "UnpackableError", "share_frozen"]


class UnpackableError(Exception):
    """Why models cannot be packed."""


def share_frozen(model: nn.Module, like: nn.Module) -> None:
    """Replaces the frozen parameters and buffers of `model` by those of `like`, which have to be equal.

    Raises UnpackableError where they differ, and leaves the model as it was.
    """
    # with duplicates: a tensor of two modules has both names
    parameters, buffers = like.named_parameters(remove_duplicate=False), like.named_buffers(remove_duplicate=False)
    theirs = {**dict(parameters), **dict(buffers)}
    pairs = []
    for name, module in model.named_modules():
        for own in (module._parameters, module._buffers):
            for leaf, value in own.items():
                if value is None or value.requires_grad:
                    continue
                other = theirs.get(f"{name}.{leaf}" if name else leaf)
                if other is None or value.dtype != other.dtype or not torch.equal(value, other):
                    raise UnpackableError(f"the frozen {name}.{leaf} differs")
                pairs.append((own, leaf, other))
    for own, leaf, other in pairs:
        own[leaf] = other


class _Stack:
    """One parameter of P runs as a leaf tensor (P, ...), whose first entries are theirs, and the others zero."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.parameters = parameters
        shape = [max(sizes) for sizes in zip(*(p.shape for p in parameters), strict=True)]
        self.whole = parameters[0].new_zeros(len(parameters), *shape).requires_grad_()

    def views(self, whole: Tensor) -> list[Tensor]:
        """Each run's part of a tensor (P, ...)."""
        return [
            one[tuple(slice(size) for size in p.shape)] for one, p in zip(whole.unbind(), self.parameters, strict=True)
        ]


class _Chosen:
    """The runs that have rows in the present batch; None: all."""

    def __init__(self) -> None:
        self.count = 0
        self.at: Tensor | None = None

    def of(self, stack: Tensor) -> Tensor:
        """Their part of a stack: (k, ...)."""
        return stack if self.at is None else stack.index_select(0, self.at)

    def by_run(self, x: Tensor) -> Tensor:
        """x (rows, ..., d) as (k, n, d)."""
        return x.reshape(self.count, -1, x.shape[-1])


class PackedFactors(Factors):
    """One update of each run: y_p + s_p B_p A_p x_p, at the `rows` that it has in each of them."""

    def __init__(self, runs: Sequence[Factors], chosen: _Chosen) -> None:
        nn.Module.__init__(self)
        self.rows, self.rows_index, self.chosen = runs[0].rows, runs[0].rows_index, chosen
        self.A_pri = _Stack([factors.A for factors in runs])
        self.B_por = _Stack([factors.B for factors in runs])
        self.s_p = self.A_pri.whole.new_tensor([factors.scaling for factors in runs])[:, None, None]

    def update(self, x: Tensor) -> Tensor:
        x_kni, chosen = self.chosen.by_run(x), self.chosen
        A_kri, B_kor = chosen.of(self.A_pri.whole), chosen.of(self.s_p * self.B_por.whole)
        z_knr = torch.bmm(x_kni, A_kri.to(x.dtype).transpose(1, 2))
        return torch.bmm(z_knr, B_kor.to(x.dtype).transpose(1, 2)).view(*x.shape[:-1], B_kor.shape[1])


class PackedLinear(nn.Module):
    """A linear map that is trained whole, as a head's: y_p = W_p x_p + b_p, in the precision of W."""

    def __init__(self, runs: Sequence[nn.Linear], chosen: _Chosen) -> None:
        super().__init__()
        self.chosen = chosen
        self.W_poi = _Stack([run.weight for run in runs])
        self.b_po = None if runs[0].bias is None else _Stack([run.bias for run in runs])

    def forward(self, x: Tensor) -> Tensor:
        W_kio = self.chosen.of(self.W_poi.whole).transpose(1, 2)
        x_kni = self.chosen.by_run(x).to(W_kio.dtype)
        if self.b_po is None:
            y_kno = torch.bmm(x_kni, W_kio)
        else:
            y_kno = torch.baddbmm(self.chosen.of(self.b_po.whole)[:, None], x_kni, W_kio)
        return y_kno.view(*x.shape[:-1], y_kno.shape[-1])


class PackedModel:
    """The forward of P models that differ in their adapters and heads alone, and their gradients.

    models: with the same frozen parameters, which are shared; they keep their own trained parameters, which are copied
    here by `refresh`, and whose `grad` comes from `give_gradients`. Raises UnpackableError for trained parameters other
    than plain factors and linear maps.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        self.chosen = _Chosen()
        frozen = {id(t): t for t in (*models[0].parameters(), *models[0].buffers())}
        self.model: Any = copy.deepcopy(models[0], frozen).train()
        self.stacks: list[_Stack] = []
        self._pack_factors(models)
        self._pack_linear_maps(models)
        self.sources: list[Tensor] = [p for stack in self.stacks for p in stack.parameters]
        self.places = [view for stack in self.stacks for view in stack.views(stack.whole.detach())]

    def _pack_factors(self, models: Sequence[nn.Module]) -> None:
        every = [{name: module.factors() for name, module in lora_modules(model).items()} for model in models]
        if any({n: [*f] for n, f in found.items()} != {n: [*f] for n, f in every[0].items()} for found in every):
            raise UnpackableError("the runs adapt other maps")
        output = getattr(models[0], "get_output_embeddings", lambda: None)()
        if output is not None and output in lora_modules(models[0]).values():
            raise UnpackableError("the output matrix is adapted, which sees unequally many targets of each run")
        for name, module in lora_modules(self.model).items():
            for block in module.factors():
                runs = [found[name][block] for found in every]
                if any(type(factors) is not Factors or factors.dropout > 0 for factors in runs):
                    raise UnpackableError(f"{name} has another kind of adapter")
                packed = PackedFactors(runs, self.chosen)
                module.blocks[block] = packed
                self.stacks += [packed.A_pri, packed.B_por]

    def _pack_linear_maps(self, models: Sequence[nn.Module]) -> None:
        packed = {id(p) for stack in self.stacks for p in stack.parameters}
        for name, module in list(models[0].named_modules()):
            trained = [p for p in module._parameters.values() if p is not None and p.requires_grad]
            if not trained or all(id(p) in packed for p in trained):
                continue
            runs = [model.get_submodule(name) for model in models]
            if not all(type(run) is nn.Linear for run in runs) or not all(p.requires_grad for p in module.parameters()):
                raise UnpackableError(f"{name} is trained, and is no linear map")
            linear = PackedLinear(cast(list[nn.Linear], runs), self.chosen)
            self.model.set_submodule(name, linear)
            self.stacks += [linear.W_poi, *([] if linear.b_po is None else [linear.b_po])]

    def refresh(self) -> None:
        """Copies the runs' parameters here, before a step."""
        with torch.no_grad():
            torch._foreach_copy_(self.places, self.sources)
        for stack in self.stacks:
            stack.whole.grad = None

    def forward(self, runs: Sequence[int], batch: dict[str, Tensor]) -> Tensor:
        """The logits of a batch with equally many rows of each of these runs, in their order."""
        self.chosen.count = len(runs)
        every = len(runs) == len(self.stacks[0].parameters) and list(runs) == sorted(runs)
        self.chosen.at = None if every else torch.tensor(runs, device=self.stacks[0].whole.device)
        return forward(self.model, batch)

    def give_gradients(self) -> None:
        """Gives each of the runs' parameters its `grad`, after the backward passes of a step; None where it has none.

        A map that no row went through has none, and AdamW then leaves it alone, as it does in a run alone.
        """
        reached = [stack for stack in self.stacks if stack.whole.grad is not None]
        found = [view for stack in reached for view in stack.views(cast(Tensor, stack.whole.grad))]
        gradients = [torch.empty_like(view) for view in found]
        if found:
            torch._foreach_copy_(gradients, found)
        for parameter in self.sources:
            parameter.grad = None
        for parameter, gradient in zip([p for s in reached for p in s.parameters], gradients, strict=True):
            parameter.grad = gradient
