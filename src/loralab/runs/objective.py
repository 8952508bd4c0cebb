"""A task's objective: batches, loss, predictions of a split, scores, and the file of predictions.

`LabelObjective` is for classes and numbers, `loralab.runs.generation.TextObjective` for text. The training loop and
runs/run.py use a task through `Objective` only.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from loralab import tasks
from loralab.store.answers import Sample
from loralab.store.predictions import write_predictions
from loralab.text import finite
from loralab.training.batches import by_length
from loralab.training.distributed import Ranks
from loralab.training.evaluate import predict
from loralab.training.threads import Workers

__all__ = ["LabelObjective", "Objective", "Predictor"]

# Examples per evaluation batch; a constant, since the shape of a batch affects the last bits of a logit.
EVALUATION_BATCH = 64

Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Predictor:
    """The model that predicts, with its workers and ranks; `check` is called between batches and may raise."""

    model: nn.Module
    check: Callable[[], Any]
    workers: Workers
    ranks: Ranks


class Objective(Protocol):
    """A task on one backbone; `predictions` are what `predict` returns."""

    @property
    def task(self) -> tasks.RawTask[Any]:
        """The texts and their labels or references."""

    @property
    def metric(self) -> str:
        """The primary metric: its validation score selects the best step."""

    def rows(self) -> dict[str, int]:
        """Number of examples of each split, in the splits' order."""

    def lengths(self, split: str) -> NDArray[np.int64]:
        """Number of tokens of each example."""

    def whole(self, split: str) -> NDArray[np.int64]:
        """The smallest train.max_length that does not cut each example."""

    def batch(self, split: str, indices: NDArray[np.int64]) -> dict[str, Tensor]:
        """A padded batch on the model's device, including `labels`."""

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of a batch."""

    def predict(self, split: str, by: Predictor) -> Any:
        """Predictions of every example, in the split's order."""

    def samples(self, split: str, by: Predictor) -> list[Sample]:
        """The answers to a few fixed questions of a split; none for a task that is not answered in text."""

    def samples_in(self, split: str, predictions: Any) -> list[Sample]:
        """The same questions with their answers in `predictions`."""

    def scores(self, split: str, predictions: Any) -> dict[str, float | None]:
        """The task's metrics and the loss."""

    def start(self, split: str) -> float:
        """About the largest loss of an example before training; 0 where it is unknown."""

    def write(self, path: Path, predictions: Mapping[str, Mapping[str, Any]]) -> None:
        """Writes predictions.parquet from {at (last or best step): {split: predictions}}."""


class LabelObjective:
    """One class, or one number, per text."""

    def __init__(
        self, task: tasks.RawTask, splits: Mapping[str, tasks.Split], *, pad_id: int, device: torch.device
    ) -> None:
        self.task, self.splits, self.pad_id, self.device = task, splits, pad_id, device
        self.metric = task.metrics[0]

    def rows(self) -> dict[str, int]:
        return {split: len(rows) for split, rows in self.splits.items()}

    def lengths(self, split: str) -> NDArray[np.int64]:
        return self.splits[split].lengths

    def whole(self, split: str) -> NDArray[np.int64]:
        return self.splits[split].whole

    def batch(self, split: str, indices: NDArray[np.int64]) -> dict[str, Tensor]:
        batch = tasks.collate(self.splits[split], indices, pad_id=self.pad_id)
        return {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross entropy; mean squared error for a regression."""
        if self.task.kind == "regression":
            return nn.functional.mse_loss(logits.squeeze(-1), labels.float())
        return nn.functional.cross_entropy(logits, labels)

    def predict(self, split: str, by: Predictor) -> Logits:
        """Logits (rows, classes)."""
        return predict(
            by.model,
            by_length(self.lengths(split), batch_size=EVALUATION_BATCH),
            lambda at: self.batch(split, at),
            rows=len(self.splits[split]),
            check=by.check,
            workers=by.workers,
            ranks=by.ranks,
        )

    def samples(self, split: str, by: Predictor) -> list[Sample]:  # noqa: ARG002
        return []

    def samples_in(self, split: str, predictions: Logits) -> list[Sample]:  # noqa: ARG002
        return []

    def scores(self, split: str, predictions: Logits) -> dict[str, float | None]:
        labels = self.splits[split].labels
        loss: float | None = self.loss(torch.from_numpy(predictions), torch.from_numpy(labels)).item()
        if not np.isfinite(predictions).all():  # an infinite logit of a wrong class leaves the loss finite
            loss = None
        guesses = predictions[:, 0] if self.task.kind == "regression" else predictions
        return {**tasks.score(self.task.metrics, guesses, labels), "loss": finite(loss)}

    def start(self, split: str) -> float:
        """The largest loss of an example at a logit of 0: of a regression, the largest square of a label."""
        if self.task.kind != "regression":
            return 0.0
        return float(np.square(self.splits[split].labels.astype(np.float64)).max())

    def write(self, path: Path, predictions: Mapping[str, Mapping[str, Logits]]) -> None:
        write_predictions(path, predictions, self.splits)
