"""Which examples make up each step's batch: a pure function of (lengths, batch size, data seed, step).

The order is a function of the seed and the step alone, so resuming needs no iterator's state.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["Order", "by_length"]

# With bucketing, this many batches' worth of a shuffled epoch is sorted by length and cut into batches: enough to leave
# about 6% of padding on sentences, few enough that the rest of a batch stays random (transformers groups by length
# alike).
POOL = 50


class Order:
    """The batches of every epoch: shuffled by `seed`, optionally in buckets of similar lengths; one may be short."""

    def __init__(
        self, lengths: Sequence[int] | NDArray[np.int64], *, batch_size: int, seed: int, bucketing: bool
    ) -> None:
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.bucketing = bucketing
        self.per_epoch = -(-len(self.lengths) // batch_size)
        self._epoch = -1
        self._batches: list[NDArray[np.int64]] = []

    def batch(self, step: int) -> NDArray[np.int64]:
        """The indices of the batch of step 0, 1, ..."""
        epoch, position = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._batches = self._shuffled(epoch)
            self._epoch = epoch
        return self._batches[position]

    def _shuffled(self, epoch: int) -> list[NDArray[np.int64]]:
        stream = np.random.PCG64([self.seed, epoch])
        order = _permutation(stream, len(self.lengths))
        if not self.bucketing:
            return _cut(order, self.batch_size)
        size = POOL * self.batch_size
        pools = [order[start : start + size] for start in range(0, len(order), size)]
        sorted_pools = [pool[np.argsort(-self.lengths[pool], kind="stable")] for pool in pools]
        batches = _cut(np.concatenate(sorted_pools), self.batch_size)
        return [batches[i] for i in _permutation(stream, len(batches))]


def by_length(lengths: Sequence[int] | NDArray[np.int64], *, batch_size: int) -> list[NDArray[np.int64]]:
    """Batches for evaluation: every example once, longest first, with little padding."""
    return _cut(np.argsort(-np.asarray(lengths), kind="stable"), batch_size)


def _permutation(stream: np.random.PCG64, count: int) -> NDArray[np.int64]:
    """From the raw stream, which numpy keeps stable; `Generator.permutation` may change between versions."""
    return np.argsort(stream.random_raw(count), kind="stable")


def _cut(order: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    return [order[start : start + size] for start in range(0, len(order), size)]
