"""What a run says about its data before it trains: the classes with their counts, and what may be wrong with it."""

from typing import Any

import numpy as np
import numpy.typing as npt

from loralab.tasks import RawTask
from loralab.text import shown

__all__ = ["cut_warning", "few_rows_warning", "labels_line"]

_CLASSES = 8  # of more, the most and the least frequent are named
_CUT = 0.05  # share of the training texts that may be cut without a warning
_FEW = 50  # held-out rows; with fewer, one answer moves accuracy by more than 2 points


def labels_line(task: RawTask[Any]) -> str | None:
    """The training labels: `classes: ham 3,774, spam 587`, or the range of numbers; None for a generation task."""
    if task.kind == "generation":
        return None
    labels = task.splits["train"].labels
    if task.labels is None:
        return f"labels: {labels.min():.4g} to {labels.max():.4g}, mean {labels.mean():.4g}"
    counts = np.bincount(labels, minlength=len(task.labels))
    order = np.argsort(-counts, kind="stable")
    named = [f"{shown(task.labels[i], longest=40)} {counts[i]:,}" for i in order]
    if len(named) <= _CLASSES:
        return f"classes: {', '.join(named)}"
    return f"{len(named)} classes, from {named[0]} rows to {named[-1]}"


def cut_warning(whole: npt.NDArray[np.int64], max_length: int) -> str | None:
    """whole: (n,) the tokens that each training example needs; the warning names the length that cuts 1%."""
    cut = float((whole > max_length).mean())
    if cut <= _CUT:
        return None
    enough = int(np.quantile(whole, 0.99, method="higher"))
    return f"train.max_length={max_length} cuts {100 * cut:.0f}% of the training texts; {enough} would cut 1%"


def few_rows_warning(rows: dict[str, int]) -> str | None:
    """rows: of each split; the warning is about the smallest one that is held out."""
    split, least = min(((name, count) for name, count in rows.items() if name != "train"), key=lambda item: item[1])
    if least >= _FEW:
        return None
    return f"the {split} split has {least} rows, so one answer moves accuracy by {100 / least:.0f} points"
