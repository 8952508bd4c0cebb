"""Blocks of tokens -> inputs and labels of a masked language model, a pure function of (seed, step).

BERT's rule (Devlin et al. 2019): of the chosen positions 80% show <mask>, 10% a random token, 10% the token itself.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["masked"]

SHOWN_AS_MASK, SHOWN_AS_RANDOM = 0.8, 0.1


def masked(
    blocks: NDArray[np.int32], *, share: float, vocabulary: int, specials: int, mask_id: int, seed: tuple[int, ...]
) -> dict[str, Tensor]:
    """input_ids (rows, length); positions (rows, k) of the chosen tokens, ascending, and labels (rows, k): int64.

    blocks: ids (rows, length); ids below `specials` are never chosen. k = round(share * length), equal in every row, so
    that parts of a batch are weighted by their rows. Raises AssertionError where a row has fewer than k candidates.
    """
    rows, length = blocks.shape
    k = max(1, round(share * length))
    choose, show, draw = (_uniform((*seed, part), rows * length).reshape(rows, length) for part in range(3))
    allowed = blocks >= specials
    assert (allowed.sum(axis=1) >= k).all(), "a block holds too few tokens that are not special"
    positions = np.sort(np.argsort(np.where(allowed, choose, 2.0), axis=1, kind="stable")[:, :k], axis=1)

    labels = np.take_along_axis(blocks, positions, axis=1).astype(np.int64)
    fate = np.take_along_axis(show, positions, axis=1)
    other = specials + (np.take_along_axis(draw, positions, axis=1) * (vocabulary - specials)).astype(np.int64)
    shown = np.where(fate < SHOWN_AS_MASK, mask_id, np.where(fate < SHOWN_AS_MASK + SHOWN_AS_RANDOM, other, labels))
    ids = blocks.astype(np.int64)
    np.put_along_axis(ids, positions, shown, axis=1)
    found = {"input_ids": ids, "positions": positions, "labels": labels}
    return {name: torch.from_numpy(of) for name, of in found.items()}


def _uniform(seed: tuple[int, ...], count: int) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1) from PCG64's raw stream, which numpy guarantees not to change."""
    return np.random.PCG64(list(seed)).random_raw(count) / 2.0**64
