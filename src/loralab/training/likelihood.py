"""-log p of every target given its context: the loss of a split, row by row."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from loralab.training.distributed import ALONE, IGNORED, Ranks
from loralab.training.evaluate import forward, in_batches
from loralab.training.threads import Workers

__all__ = ["token_losses"]


def token_losses(
    model: nn.Module,
    order: Iterable[NDArray[np.int64]],
    fetch: Callable[[NDArray[np.int64]], dict[str, Tensor]],
    *,
    rows: int,
    check: Callable[[], Any],
    workers: Workers,
    ranks: Ranks = ALONE,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Of each row: the sum of -log p over its target's tokens, and their number, with dropout off.

    fetch: indices -> a batch as in training, whose labels (batch, tokens) are IGNORED beside the targets, and whose
    logits_to_keep, if it is there, is True at them; the others as
    in `predict`. The sum of the sums over the sum of the numbers is the loss of the split.
    """

    def of_batch(indices: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        batch = fetch(indices)
        with ranks.without_gradients():
            logits, labels = forward(model, batch), batch["labels"]
            told = labels != IGNORED
            at_targets = logits if logits.ndim == 2 else logits[told]
            found = nn.functional.cross_entropy(at_targets, labels[told], reduction="none").cpu().double()
            told = told.cpu()
            losses = torch.zeros(told.shape, dtype=torch.float64)
            losses[told] = found
            return losses.sum(1).numpy(), told.sum(1).numpy()

    sums, numbers = np.empty(rows, dtype=np.float64), np.empty(rows, dtype=np.int64)
    for indices, (batch_sums, batch_numbers) in in_batches(
        model, order, of_batch, check=check, workers=workers, ranks=ranks
    ):
        sums[indices], numbers[indices] = batch_sums, batch_numbers
    return sums, numbers
