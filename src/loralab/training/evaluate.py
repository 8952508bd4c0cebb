"""Predictions of a model on a split, in the split's order."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from loralab.training.workers import Workers

__all__ = ["forward", "predict"]


def forward(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """The logits (batch, classes) in fp32; the batch's `labels` are not shown to the model."""
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
) -> NDArray[np.float32]:
    """Logits (rows, classes) of every example, with dropout off; `check` is called before each batch and may raise.

    order: the indices of each batch, every example once; fetch: indices -> the batch on the model's device; workers:
    who predict the batches.
    """

    def of_batch(indices: NDArray[np.int64]) -> NDArray[np.float32]:
        check()
        with torch.inference_mode():
            logits: NDArray[np.float32] = forward(model, fetch(indices)).cpu().numpy()
        return logits

    was_training = model.training
    model.eval()
    out: NDArray[np.float32] | None = None
    batches = list(order)
    try:
        for indices, logits in zip(batches, workers.map(of_batch, batches), strict=True):
            if out is None:
                out = np.empty((rows, logits.shape[1]), dtype=np.float32)
            out[indices] = logits
    finally:
        model.train(was_training)
    assert out is not None, "nothing to predict"
    return out
