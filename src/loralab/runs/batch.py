"""The batch of one step of a run: its examples, and the gradient of the run alone."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from loralab.runs.prepare import Prepared
from loralab.training.gradient import backward
from loralab.training.loop import Batch
from loralab.training.session import Session

__all__ = ["RunBatch", "batch_of"]


@dataclass(frozen=True)
class RunBatch(Batch):
    """rows: the training examples; of a run that trains in this process."""

    rows: NDArray[np.int64]
    prepared: Prepared
    session: Session


def batch_of(prepared: Prepared, session: Session, rows: NDArray[np.int64]) -> RunBatch:
    """The batch of these examples, whose `backward` is that of a run alone."""
    objective, trained = prepared.objective, prepared.trained

    def alone() -> Tensor:
        return backward(
            prepared.model,
            objective.batch("train", rows),
            loss_of=objective.loss,
            scaler=trained.scaler,
            parameters=[*trained.weights.values()],
            workers=session.workers,
            parts=prepared.parts,
            ranks=prepared.ranks,
        )

    return RunBatch(int(objective.lengths("train")[rows].sum()), alone, rows, prepared, session)
