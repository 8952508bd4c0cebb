"""The gradient of one batch, computed at once or in parts by ranks and threads."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from loralab.training.distributed import ALONE, Ranks, terms
from loralab.training.evaluate import forward
from loralab.training.threads import Workers

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

    loss_of: logits and labels -> the mean loss of the examples, or of the target tokens, by which parts of the batch
    are weighed (`terms`). Each of n workers takes every n-th example, so that their work is equal. Losses and
    gradients are summed in the order of the shards: equal counts give equal bits. All ranks get the same
    batch; `grad` must be None before, since the sum over the ranks would count it.
    """
    part, share = ranks.part(batch)
    if workers.count == 1:
        loss = loss_of(forward(model, part), part["labels"]) * share
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch gives it no types
        return ranks.add_up(loss.detach(), parameters)

    rows, whole = len(part["labels"]), terms(part["labels"])

    def of_shard(first: int) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        shard = {name: value[first :: workers.count] for name, value in part.items()}
        loss = loss_of(forward(model, shard), shard["labels"]) * (share * terms(shard["labels"]) / whole)
        # autograd.grad, since two threads must not add to one `grad`
        return loss.detach(), torch.autograd.grad(scaler.scale(loss), parameters, allow_unused=True)

    losses, gradients = zip(*workers.map(of_shard, range(min(workers.count, rows))), strict=True)
    for parameter, *shards in zip(parameters, *gradients, strict=True):
        for gradient in shards:
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
    return ranks.add_up(torch.stack(losses).sum(), parameters)
