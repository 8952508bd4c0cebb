"""The gradient of one batch, computed at once or in micro-batches by ranks and threads."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from loralab.training.distributed import ALONE, Ranks, terms
from loralab.training.evaluate import forward
from loralab.training.threads import Workers

__all__ = ["CPU_PARTS", "backward"]

# Micro-batches of a batch on a CPU. A constant, since the shapes of the parts affect the last bits of a gradient: a run
# has the same bytes with any number of threads. MiniLM with LoRA, 32 rows, one thread of an AVX512-BF16 CPU, ms a step:
# in bf16 125 (1 part), 124 (2), 146 (4), 193 (8); in fp32 353, 367, 391, 439.
CPU_PARTS = 2


def backward(
    model: nn.Module,
    batch: Mapping[str, Tensor],
    *,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    scaler: torch.amp.GradScaler,
    parameters: Sequence[nn.Parameter],
    workers: Workers,
    parts: int,
    ranks: Ranks = ALONE,
) -> Tensor:
    """The batch's mean loss, detached; its gradient, scaled by `scaler`, is in the `grad` of each of `parameters`.

    loss_of: logits and labels -> the mean loss of the examples, or of the target tokens, by which parts of the batch
    are weighed (`terms`); parts: the number of micro-batches, of which the workers compute as many at once as there
    are threads. Each of n micro-batches takes every n-th example, so that their work is equal. Losses and gradients are
    summed in the order of the micro-batches: equal parts give equal bits, whatever the number of workers. All ranks get
    the same batch; `grad` must be None before, since the sum over the ranks would count it.
    """
    part, share = ranks.part(batch)
    rows = len(part["labels"])
    parts = min(parts, max(1, len(batch["labels"]) // ranks.count) if ranks.in_step else rows)
    if parts == 1:
        loss = loss_of(forward(model, part), part["labels"]) * share
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch gives it no types
        return ranks.add_up(loss.detach(), parameters)

    whole = terms(part["labels"])  # on a GPU a wait, so not for one part

    def of_part(first: int) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        micro = {name: value[first::parts] for name, value in part.items()}
        loss = loss_of(forward(model, micro), micro["labels"]) * (share * terms(micro["labels"]) / whole)
        # autograd.grad, since two threads must not add to one `grad`
        return loss.detach(), torch.autograd.grad(scaler.scale(loss), parameters, allow_unused=True)

    losses = []
    for loss, gradients in workers.map(of_part, range(parts)):
        losses.append(loss)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
    return ranks.add_up(torch.stack(losses).sum(), parameters)
