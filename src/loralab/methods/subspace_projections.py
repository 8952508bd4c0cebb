"""Random projections R for intrinsic dimension: R z and R^T g, tile by tile, without storing R.

A tile is `tile` consecutive rows of R, which are computed together. `tiles` selects some by number, in order.
"""

import functools
import math

import torch
from torch import Tensor, nn

__all__ = ["PROJECTIONS", "Fastfood", "Sparse"]

# Hadamard matrices are computed as Kronecker products of small ones of at most this size.
LARGEST = 32


class Fastfood(nn.Module):
    """Rows of R: the first `entries` of blocks H G P H B, scaled (Le et al. 2013; without its S, as in both papers).

    H: Hadamard (D, D) with D the least power of two >= d (z is padded with zeros); B: signs; P: a permutation, the same
    for all blocks here; G: Gaussian. All rows and columns of a block have length sqrt(D) ||G|| exactly, scaled to
    sqrt(D / N). Takes O(n log d) time and 5 bytes per weight for B and G (8 bytes more for P if D is above 65,536).
    """

    signs: Tensor
    gauss: Tensor
    order: Tensor
    inverse: Tensor

    def __init__(self, entries: int, dim: int, total: int, generator: torch.Generator) -> None:
        super().__init__()
        self.entries, self.dim = entries, dim
        size = 2 ** math.ceil(math.log2(dim))
        blocks = math.ceil(entries / size)
        signs = torch.randint(0, 2, (blocks, size), dtype=torch.int8, generator=generator) * 2 - 1
        gauss = torch.randn(size, blocks, generator=generator)
        order = torch.randperm(size, generator=generator)
        self.register_buffer("signs", signs, persistent=False)
        self.register_buffer("gauss", gauss / (gauss.norm(dim=0) * math.sqrt(total)), persistent=False)
        self.register_buffer("order", order.int(), persistent=False)
        self.register_buffer("inverse", order.argsort().int(), persistent=False)

    @property
    def tile(self) -> int:
        return self.signs.shape[1]

    def times(self, z: Tensor, tiles: Tensor | None = None) -> Tensor:
        """R z for these rows, (n,), or for all rows of some tiles."""
        signs, gauss = self._of(tiles)
        x = _blocks_last(signs * nn.functional.pad(z, (0, self.tile - self.dim)))
        x = x.index_select(0, self.order).mul_(gauss)
        return _blocks_first(x).reshape(-1)[: self.entries if tiles is None else None]

    def transposed(self, g: Tensor, tiles: Tensor | None = None) -> Tensor:
        """R^T g for these rows, (d,), or for some tiles: the same factors in reverse order, since H is symmetric."""
        signs, gauss = self._of(tiles)
        x = nn.functional.pad(g, (0, signs.numel() - len(g))).view(signs.shape)
        x = _blocks_last(x).mul_(gauss).index_select(0, self.inverse)
        return _blocks_first(x).mul_(signs).sum(0)[: self.dim]

    def _of(self, tiles: Tensor | None) -> tuple[Tensor, Tensor]:
        return (self.signs, self.gauss) if tiles is None else (self.signs[tiles], self.gauss[:, tiles])


class Sparse(nn.Module):
    """Rows of R with one entry each, a random sign in a random column (the count sketch, Charikar et al. 2002).

    With each column divided by the square root of its number of entries, R^T R = 1, so that ||R z|| = ||z|| exactly.
    The sparse R of Li et al. has d / sqrt(N) entries per row on average: with d = 1000, most weights of a large
    backbone would not change. Takes O(n) time and 4 bytes per weight: the column, plus d for a negative sign.
    """

    column: Tensor
    tile = 1

    def __init__(self, entries: int, dim: int, _total: int, generator: torch.Generator) -> None:
        super().__init__()
        self.dim = dim
        column = torch.randint(0, 2 * dim, (entries,), dtype=torch.int32, generator=generator)
        self.register_buffer("column", column, persistent=False)

    def times(self, z: Tensor, tiles: Tensor | None = None) -> Tensor:
        """R z for these rows, (n,), or for some of them."""
        return torch.cat([z, -z]).index_select(0, self._of(tiles))

    def transposed(self, g: Tensor, tiles: Tensor | None = None) -> Tensor:
        """R^T g for these rows, (d,), or for some of them."""
        found = g.new_zeros(2 * self.dim).index_add_(0, self._of(tiles), g)
        return found[: self.dim] - found[self.dim :]

    def _of(self, tiles: Tensor | None) -> Tensor:
        return self.column if tiles is None else self.column[tiles]


PROJECTIONS: dict[str, type[Fastfood] | type[Sparse]] = {"fastfood": Fastfood, "sparse": Sparse}


@functools.cache
@torch.inference_mode(False)  # it is kept: one made while evaluating could not be used in a training step
def _hadamard(size: int, device: torch.device) -> Tensor:
    """The Hadamard matrix H (size, size) of signs, for a power of two; H H = size I."""
    H = torch.ones(1, 1)
    while len(H) < size:
        H = torch.cat([torch.cat([H, H], 1), torch.cat([H, -H], 1)])
    return H.to(device)


def _small_sizes(size: int) -> list[int]:
    """Powers of two up to LARGEST whose product is `size`."""
    sizes = []
    while size > 1:
        sizes.append(min(size, LARGEST))
        size //= sizes[-1]
    return sizes


def _blocks_last(x_kd: Tensor) -> Tensor:
    """H x of each row, (k, D) -> (D, k): each small H maps the last axis to the first, without a copy."""
    blocks, size = x_kd.shape
    x = x_kd
    for small in _small_sizes(size):
        x = _hadamard(small, x.device) @ x.reshape(-1, small).T
    return x.reshape(size, blocks)


def _blocks_first(x_dk: Tensor) -> Tensor:
    """H x of each column, (D, k) -> (k, D): each small H maps the first axis to the last."""
    size, blocks = x_dk.shape
    x = x_dk
    for small in _small_sizes(size)[::-1]:
        x = x.reshape(small, -1).T @ _hadamard(small, x.device)
    return x.reshape(blocks, size)
