"""R z and R^T g of the random projections are products with matrices, and those of some tiles are their rows."""

import math
from typing import Any

import pytest
import torch
from scipy.linalg import hadamard
from torch import nn

from loralab.methods.subspace_projections import Fastfood, Sparse, _hadamard


@pytest.mark.parametrize("dim", [1, 20, 32, 100])
def test_fastfood_is_the_product_of_its_factors(dim: int) -> None:
    """H G P H B of Le et al. as matrices, block by block."""
    entries, total = 150, 1000
    part = Fastfood(entries, dim, total, torch.Generator().manual_seed(0))
    size = part.signs.shape[1]
    H = torch.from_numpy(hadamard(size)).float()
    P = torch.eye(size)[part.order.long()]
    blocks = [H @ part.gauss[:, k].diag() @ P @ H @ part.signs[k].float().diag() for k in range(len(part.signs))]
    R = torch.cat(blocks)[:entries, :dim]
    z, g = torch.randn(dim), torch.randn(entries)
    torch.testing.assert_close(part.times(z), R @ z, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(part.transposed(g), R.T @ g, rtol=1e-4, atol=1e-5)
    for block in blocks:
        lengths = torch.full((size,), math.sqrt(size / total))
        torch.testing.assert_close(block.norm(dim=0), lengths)
        torch.testing.assert_close(block.norm(dim=1), lengths)


def test_a_dimension_beyond_the_small_hadamard_matrices_is_still_one_product() -> None:
    part = Fastfood(3000, 2000, 3000, torch.Generator().manual_seed(0))  # 2048 = 32 x 32 x 2
    x = torch.randn(2000)
    H = torch.from_numpy(hadamard(2048)).float()
    padded = nn.functional.pad(x, (0, 48))
    expected = [H @ (part.gauss[:, k] * (H @ (part.signs[k] * padded))[part.order.long()]) for k in (0, 1)]
    torch.testing.assert_close(part.times(x), torch.cat(expected)[:3000], rtol=1e-4, atol=1e-3)


def test_sparse_has_one_sign_a_row() -> None:
    part = Sparse(500, 7, 500, torch.Generator().manual_seed(0))
    R = torch.stack([part.times(unit) for unit in torch.eye(7)], 1)
    assert set(R.flatten().tolist()) == {-1.0, 0.0, 1.0}
    assert (R.abs().sum(1) == 1).all()
    g = torch.randn(500)
    torch.testing.assert_close(part.transposed(g), R.T @ g)


@pytest.mark.parametrize("kind", [Fastfood, Sparse])
def test_some_tiles_are_their_rows(kind: Any) -> None:
    part = kind(150, 20, 1000, torch.Generator().manual_seed(0))
    tiles = torch.tensor([0, 2, 3])
    rows = torch.cat([torch.arange(part.tile * tile, part.tile * (tile + 1)) for tile in tiles.tolist()])
    z, g = torch.randn(20), torch.randn(len(rows))
    torch.testing.assert_close(part.times(z, tiles), part.times(z)[rows])
    spread = torch.zeros(150).index_copy(0, rows, g)
    torch.testing.assert_close(part.transposed(g, tiles), part.transposed(spread))


def test_a_projection_first_used_while_evaluating_is_trained_through_afterwards() -> None:
    part = Fastfood(40, 7, 40, torch.Generator().manual_seed(0))
    _hadamard.cache_clear()
    with torch.inference_mode():
        part.times(torch.randn(7))
    z = torch.randn(7, requires_grad=True)
    (gradient,) = torch.autograd.grad(part.times(z).sum(), z)
    assert gradient.abs().sum() > 0
