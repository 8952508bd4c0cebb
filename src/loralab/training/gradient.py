"""The gradient of one batch: at once, or by ranks and workers that each take a part of the batch."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from loralab.training.evaluate import forward
from loralab.training.ranks import ALONE, Ranks
from loralab.training.workers import Workers

__all__ = ["backward"]


def backward(
    model: nn.Module,
    batch: Mapping[str, Tensor],
    *,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    scaler: torch.amp.GradScaler,
    parameters: Sequence[nn.Parameter],
    workers: Workers,
    ranks: Ranks = ALONE,
) -> Tensor:
    """The batch's mean loss, detached; its gradient, scaled by `scaler`, is in the `grad` of each of `parameters`.

    loss_of: logits and labels -> the mean loss of the examples. Of n workers each takes every n-th example, so that all
    have as much to do. Losses and gradients are summed in the order of the shards: equal counts give equal bits.
    Several ranks are given the same batch; no `grad` may be there before, for the sum over the ranks would count it.
    """
    if ranks.count == 1:
        return _backward(model, batch, loss_of, scaler, parameters, workers)
    part, share = ranks.part(batch)
    loss = _backward(model, part, lambda logits, y: loss_of(logits, y) * share, scaler, parameters, workers)
    return ranks.add_up(loss, parameters)


def _backward(
    model: nn.Module,
    batch: Mapping[str, Tensor],
    loss_of: Callable[[Tensor, Tensor], Tensor],
    scaler: torch.amp.GradScaler,
    parameters: Sequence[nn.Parameter],
    workers: Workers,
) -> Tensor:
    """`backward` by this process alone."""
    if workers.count == 1:
        loss = loss_of(forward(model, batch), batch["labels"])
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch gives it no types
        return loss.detach()

    rows = len(batch["labels"])

    def of_shard(first: int) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        shard = {name: value[first :: workers.count] for name, value in batch.items()}
        loss = loss_of(forward(model, shard), shard["labels"]) * (len(shard["labels"]) / rows)
        # autograd.grad, since two threads must not add to one `grad`
        return loss.detach(), torch.autograd.grad(scaler.scale(loss), parameters, allow_unused=True)

    losses, gradients = zip(*workers.map(of_shard, range(min(workers.count, rows))), strict=True)
    for parameter, *parts in zip(parameters, *gradients, strict=True):
        for part in parts:
            if part is not None:
                parameter.grad = part if parameter.grad is None else parameter.grad.add_(part)
    return torch.stack(losses).sum()
