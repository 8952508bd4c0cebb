"""Predictions of a model on a split, in the split's order."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from loralab.training.distributed import ALONE, Ranks
from loralab.training.threads import Workers

__all__ = ["forward", "in_batches", "predict"]

Found = TypeVar("Found")


def forward(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """The logits in fp32, (batch, classes) or (batch, tokens, vocabulary); the model does not see the `labels`.

    (targets, vocabulary) for a batch with `logits_to_keep` (backbones/target_logits.py).
    """
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    logits: Tensor = model(**inputs).logits
    return logits.float()


def predict(
    model: nn.Module,
    order: Iterable[NDArray[np.int64]],
    fetch: Callable[[NDArray[np.int64]], dict[str, Tensor]],
    *,
    rows: int,
    check: Callable[[], Any],
    workers: Workers,
    ranks: Ranks = ALONE,
) -> NDArray[np.float32]:
    """Logits (rows, classes) of every example, with dropout off; `check` is called before each batch and may raise.

    order: the indices of each batch, every example once; fetch: indices -> the batch on the model's device; workers:
    the threads that predict batches. With several ranks each predicts every n-th batch and gets all logits; all call
    `check` equally often, so that it may communicate, and each has one thread.
    """

    def of_batch(indices: NDArray[np.int64]) -> NDArray[np.float32]:
        with ranks.without_gradients():
            logits: NDArray[np.float32] = forward(model, fetch(indices)).cpu().numpy()
        return logits

    every = in_batches(model, order, of_batch, check=check, workers=workers, ranks=ranks)
    out = np.empty((rows, every[0][1].shape[1]), dtype=np.float32)
    for indices, logits in every:
        out[indices] = logits
    return out


def in_batches(
    model: nn.Module,
    order: Iterable[NDArray[np.int64]],
    of_batch: Callable[[NDArray[np.int64]], Found],
    *,
    check: Callable[[], Any],
    workers: Workers,
    ranks: Ranks,
) -> list[tuple[NDArray[np.int64], Found]]:
    """The indices of every batch and the result of `of_batch` there, with dropout off; arguments as in `predict`."""

    def checked(indices: NDArray[np.int64]) -> Found:
        check()
        return of_batch(indices)

    was_training = model.training
    model.eval()
    batches = list(order)
    assert batches, "nothing to predict"
    mine = batches[ranks.index :: ranks.count]
    assert ranks.count == 1 or workers.count == 1, "threads would speak to other ranks in nobody's order"
    try:
        with (
            parametrize.cached()
        ):  # weights that are computed from others (method=intrinsic) are computed once for all batches
            found = list(zip(mine, workers.map(checked, mine), strict=True))
            if len(mine) < -(-len(batches) // ranks.count):
                check()
                if ranks.in_step:
                    of_batch(batches[0])
    finally:
        model.train(was_training)
    return [pair for part in ranks.of_all(found) for pair in part]
