"""f(x) = W_out relu(B A relu(W_in x)): the network of LoRA+'s Figure 2, trained at many pairs of rates at once.

A and B are trained by gradient descent on all examples; W_in and W_out are not. Every pair (lr_A, lr_B) of a seed has
the same data and the same start, so h = relu(W_in x) is computed once and the batch is over pairs. Both A and B start
at random: if one of them were zero, B A h would be zero, where relu has slope 0: no gradient, and nothing is trained.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

__all__ = ["Losses", "Problem", "gradients", "outputs", "problem", "train"]

# Numbers of the hidden layer (pairs x n x examples) made at a time: 1.6 MB of fp32, for a core's 2 MB of cache. CPU
# time of `gradients` on one thread of a server CPU, n = 100, 1000 examples, per pair and step: 185 us at 100,000
# numbers, 150 at 200,000, 135 at 400,000, 165 at 800,000; its products alone take twice as much at 6,400,000.
CHUNK = 400_000


class Losses(NamedTuple):
    """Mean squared errors, (seeds, pairs, steps); NaN from the step on at which a pair diverged."""

    train: NDArray[np.float64]
    test: NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """One seed's data, and its weights at the start. h: relu(W_in x), a column an example; w: W_out."""

    h_nt: Tensor
    y_t: Tensor
    test_h_nt: Tensor
    test_y_t: Tensor
    w_n: Tensor
    A_rn: Tensor
    B_nr: Tensor


def problem(
    seed: int, n: int, *, rank: int = 4, inputs: int = 5, rows: tuple[int, int] = (1000, 100),
    dtype: torch.dtype = torch.float32,
) -> Problem:  # fmt: skip
    """X ~ N(0, I), y = sin(sum(x) / d); W_in ~ N(0, 1), W_out and A ~ N(0, 1/n), B ~ N(0, 1) (LoRA+, Figure 2).

    rows: training and test examples. A seed's examples are the same at every width. Drawn in float64, so that another
    dtype rounds the same numbers.
    """
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape: int, variance: float = 1.0) -> Tensor:
        return torch.randn(shape, generator=rng, dtype=torch.float64) * math.sqrt(variance)

    sets = [normal(inputs, count) for count in rows]
    W_in = normal(n, inputs)
    w, A, B = normal(n, variance=1 / n), normal(rank, n, variance=1 / n), normal(n, rank)
    found = [part for x in sets for part in (torch.relu(W_in @ x), torch.sin(x.sum(0) / inputs))]
    return Problem(*(part.to(dtype) for part in (*found, w, A, B)))


def outputs(A_crn: Tensor, B_cnr: Tensor, h_nt: Tensor, w_n: Tensor) -> Tensor:
    """f of each pair at each example, (c x t)."""
    return torch.einsum("n,cnt->ct", w_n, torch.relu(B_cnr @ (A_crn @ h_nt)))


def gradients(
    A_crn: Tensor, B_cnr: Tensor, h_nt: Tensor, y_t: Tensor, w_n: Tensor, *, chunk: int = CHUNK
) -> tuple[Tensor, Tensor, Tensor]:
    """L = mean (f - y)^2 of each pair, and its gradients in A and B.

    With z = A h, M = [B z > 0], P = (w B)^T M and e = 2 (f - y) / t: f = sum_r P z, dB = w (M (e z)^T), dA = (P e) h^T.
    So the mask is the only elementwise operation on the hidden layer, which is computed `chunk` numbers at a time.
    """
    pairs, rank, n = A_crn.shape
    count = len(y_t)
    z_crt = (A_crn.reshape(-1, n) @ h_nt).view(pairs, rank, count)
    wB_crn = (B_cnr * w_n[:, None]).transpose(1, 2)
    loss_c, dB_crn, dz_crt = torch.zeros_like(A_crn[:, 0, 0]), torch.zeros_like(A_crn), torch.empty_like(z_crt)
    width = max(1, chunk // (pairs * n))
    for start in range(0, count, width):
        at = slice(start, start + width)
        M_cnt = torch.bmm(B_cnr, z_crt[:, :, at]).gt_(0)
        P_crt = torch.bmm(wB_crn, M_cnt)
        error_ct = (P_crt * z_crt[:, :, at]).sum(1) - y_t[at]
        loss_c += error_ct.square().sum(1) / count
        e_c1t = error_ct[:, None] * (2 / count)
        dB_crn += torch.bmm(z_crt[:, :, at] * e_c1t, M_cnt.transpose(1, 2))
        dz_crt[:, :, at] = P_crt * e_c1t
    dA_crn = (dz_crt.view(-1, count) @ h_nt.T).view(pairs, rank, n)
    return loss_c, dA_crn, dB_crn.transpose(1, 2) * w_n[:, None]


def train(
    lr_A: ArrayLike, lr_B: ArrayLike, at: Sequence[int], *, n: int, seeds: Sequence[int], rank: int = 4,
    inputs: int = 5, rows: tuple[int, int] = (1000, 100), dtype: torch.dtype = torch.float32,
    chunk: int = CHUNK,
) -> Losses:  # fmt: skip
    """Losses of each pair (lr_A[i], lr_B[i]) after `at` updates, from each seed's start.

    A pair whose training loss is not finite has diverged and is dropped.
    """
    rates = [np.array(lr, dtype=float) for lr in (lr_A, lr_B)]
    if rates[0].shape != rates[1].shape or rates[0].ndim != 1:
        raise ValueError(f"lr_A has shape {rates[0].shape} and lr_B has {rates[1].shape}; they must be rows of pairs")
    pairs = len(rates[0])
    found = np.full((2, len(seeds), pairs, len(at)), np.nan)
    together = max(1, chunk // (n * rows[0]))
    for row, seed in enumerate(seeds):
        start = problem(seed, n, rank=rank, inputs=inputs, rows=rows, dtype=dtype)
        for first in range(0, pairs, together):
            own = slice(first, first + together)
            some = [torch.from_numpy(lr[own]).to(dtype) for lr in rates]
            found[:, row, own] = _descend(start, some[0], some[1], at, chunk)
    found[np.isinf(found)] = np.nan  # the test examples' alone
    return Losses(*found)


def _descend(start: Problem, lr_A_c: Tensor, lr_B_c: Tensor, at: Sequence[int], chunk: int) -> NDArray[np.float64]:
    """Training and test losses of some pairs, (2, pairs, steps)."""
    found = np.full((2, len(lr_A_c), len(at)), np.nan)
    left = torch.arange(len(lr_A_c))
    A, B = (weight.expand(len(left), *weight.shape).clone() for weight in (start.A_rn, start.B_nr))
    for step in range(max(at) + 1):
        loss, dA, dB = gradients(A, B, start.h_nt, start.y_t, start.w_n, chunk=chunk)
        sound = loss.isfinite()
        if not sound.all():
            left, loss, A, B, dA, dB = (part[sound] for part in (left, loss, A, B, dA, dB))
        if not len(left):
            break
        if step in at:
            test = (outputs(A, B, start.test_h_nt, start.w_n) - start.test_y_t).square().mean(1)
            found[:, left.numpy(), at.index(step)] = torch.stack([loss, test]).numpy()
        A -= lr_A_c[left, None, None] * dA
        B -= lr_B_c[left, None, None] * dB
    return found
