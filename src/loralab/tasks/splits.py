"""A task before tokenisation (the result of every reader), and the rules for splitting rows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from typing_extensions import TypeVar

from loralab.errors import UserError

__all__ = ["Kind", "Labels", "Pairs", "RawTask", "Texts", "hold_out", "order", "subset"]

Kind: TypeAlias = Literal["classification", "regression", "generation"]
Labels: TypeAlias = npt.NDArray[np.int64] | npt.NDArray[np.float32]  # class ids | scores

_SUBSET_SEED = 1  # seed of the permutation for train_rows and eval_rows; not the run's seed


@dataclass(frozen=True)
class Texts:
    """One split: n examples of one or two texts, their labels, and their row numbers in the source.

    `labels` are class ids (int64) or scores (float32); `rows` (int64) numbers the source's rows of this task from 0,
    before duplicates are removed.
    """

    texts: list[tuple[str, ...]]
    labels: Labels
    rows: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        assert len(self.texts) == len(self.labels) == len(self.rows)

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, indices: npt.NDArray[np.int64]) -> "Texts":
        """The examples at `indices`, in that order."""
        return Texts([self.texts[i] for i in indices], self.labels[indices], self.rows[indices])


@dataclass(frozen=True)
class Pairs:
    """One split of a generation task: n contexts, each with its reference texts.

    Training uses the first of a row's `references`, scoring uses all. `databases` has an SQL script for each row if
    answers are scored by execution; rows of the same table share one str. `rows` is as in `Texts`.
    """

    contexts: list[str]
    references: list[tuple[str, ...]]
    rows: npt.NDArray[np.int64]
    databases: list[str] | None = None

    def __post_init__(self) -> None:
        assert len(self.contexts) == len(self.references) == len(self.rows)
        assert self.databases is None or len(self.databases) == len(self.rows)

    def __len__(self) -> int:
        return len(self.contexts)

    def take(self, indices: npt.NDArray[np.int64]) -> "Pairs":
        """The examples at `indices`, in that order."""
        return Pairs(
            [self.contexts[i] for i in indices],
            [self.references[i] for i in indices],
            self.rows[indices],
            None if self.databases is None else [self.databases[i] for i in indices],
        )


Rows = TypeVar("Rows", Texts, Pairs, default=Texts)


@dataclass(frozen=True)
class RawTask(Generic[Rows]):
    """A task's splits ("train", "validation", "test"; MNLI also "test_mismatched") and how it is scored.

    Splits are Texts, or Pairs if `kind` is generation. `labels` are the class names in the order of their ids, None for
    other kinds; the first of `metrics` is the primary one.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...] | None
    splits: dict[str, Rows]
    metrics: tuple[str, ...]


def order(count: int, seed: int) -> npt.NDArray[np.int64]:
    """A fixed permutation of range(count): the stable argsort of PCG64's raw stream.

    numpy guarantees the bit generator's stream across versions, but not the results of `Generator.permutation`.
    """
    return np.argsort(np.random.PCG64(seed).random_raw(count), kind="stable")


def hold_out(texts: Sequence[tuple[str, ...]], sizes: Sequence[int], seed: int) -> list[npt.NDArray[np.int64]]:
    """Row indices of len(sizes) held-out parts of about sizes[k] rows each, then of the rest; no text is in two parts.

    Rows with equal texts stay together, so a part may exceed its size by the duplicates of its last text.
    """
    group_of: dict[tuple[str, ...], list[int]] = {}
    for row, text in enumerate(texts):
        group_of.setdefault(text, []).append(row)
    groups = list(group_of.values())
    parts: list[list[int]] = [[] for _ in range(len(sizes) + 1)]
    part = 0
    for index in order(len(groups), seed):
        while part < len(sizes) and len(parts[part]) >= sizes[part]:
            part += 1
        parts[part].extend(groups[index])
    return [np.array(rows, dtype=np.int64) for rows in parts]


def subset(raw: RawTask[Rows], train_rows: int | None, eval_rows: int | None = None) -> RawTask[Rows]:
    """The task with the first `train_rows` of a fixed permutation of its training examples; None keeps them all.

    `eval_rows` does the same for validation and each test split. A smaller subset is contained in every larger one.
    """
    sizes = {split: train_rows if split == "train" else eval_rows for split in raw.splits}
    return replace(raw, splits={split: _first(raw, split, rows) for split, rows in sizes.items()})


def _first(raw: RawTask[Rows], split: str, rows: int | None) -> Rows:
    whole = raw.splits[split]
    if rows is None:
        return whole
    key = "train_rows" if split == "train" else "eval_rows"
    if not 1 <= rows <= len(whole):
        name = "training" if split == "train" else split
        raise UserError(f"task.{key}: got {rows}; {raw.name} has {len(whole)} {name} rows, null keeps all")
    return whole.take(order(len(whole), _SUBSET_SEED)[:rows])
