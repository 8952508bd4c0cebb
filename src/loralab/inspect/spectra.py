"""Spectra and subspaces of updates: pure functions over A (r, k), B (d, r) and W (d, k), computed in float64.

delta W = scaling B A = U diag(S) V^T, with U (d, p) and V (k, p) orthonormal, S falling, and p = min(r, d, k). A basis
is a matrix with orthonormal columns, the most important first. Section 7 and appendices G and H of LoRA (Hu et al.
2021), whose code was never published.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "ThinSVD",
    "amplification",
    "best_cosines",
    "effective_rank",
    "energy",
    "expected_similarity",
    "grassmann",
    "intruders",
    "intruders_among",
    "left_basis",
    "numerical_rank",
    "projected_norm",
    "random_basis",
    "right_basis",
    "similarity",
    "stable_rank",
    "thin_svd",
]

Array = NDArray[np.float64]
SLACK = 1e-6  # of a basis' U^T U from the identity; bases stored in fp32 stay within it


class ThinSVD(NamedTuple):
    """U (d, p), S (p,) and V (k, p): columns of U and V are the singular vectors, the largest singular value first."""

    U: Array
    S: Array
    V: Array


def thin_svd(A: ArrayLike, B: ArrayLike, scaling: float) -> ThinSVD:
    """The SVD of delta W = scaling B A by way of B = Q_B R_B, A^T = Q_A R_A and the r x r core scaling R_B R_A^T.

    A (r, k), B (d, r); nothing of size d x k is formed. Vectors of singular values that are 0 (an untrained adapter has
    no others) are orthonormal and otherwise arbitrary: see `numerical_rank`.
    """
    a, b = _matrix("A", A), _matrix("B", B)
    if len(a) != b.shape[1]:
        raise ValueError(f"A is {a.shape} and B is {b.shape}; A (r, k) and B (d, r) share r")
    q_b, r_b = np.linalg.qr(b)
    q_a, r_a = np.linalg.qr(a.T)
    left, values, right = np.linalg.svd(scaling * (r_b @ r_a.T), full_matrices=False)
    return ThinSVD(q_b @ left, values, q_a @ right.T)


def right_basis(A: ArrayLike) -> Array:
    """The right singular vectors of A (r, k), as columns (k, min(r, k)), as LoRA's Fig 3 compares; or W's."""
    return np.linalg.svd(_matrix("A", A), full_matrices=False).Vh.T


def left_basis(B: ArrayLike) -> Array:
    """The left singular vectors of B (d, r), as columns (d, min(d, r)): the B side; or W's."""
    return np.linalg.svd(_matrix("B", B), full_matrices=False).U


def random_basis(d: int, r: int, rng: np.random.Generator) -> Array:
    """A uniformly random r-dimensional subspace of R^d, as (d, r): the control. QR of a Gaussian matrix."""
    if not 1 <= r <= d:
        raise ValueError(f"r: got {r}; a subspace of R^{d} has from 1 to {d} dimensions")
    return np.linalg.qr(rng.standard_normal((d, r))).Q


def similarity(U: ArrayLike, V: ArrayLike) -> Array:
    """phi(i, j) = ||U_i^T V_j||_F^2 / min(i, j) for all i and j: how much the first i and j directions share, 0 to 1.

    U (n, p), V (n, q): bases; the answer is (p, q), with phi(i, j) at [i - 1, j - 1]. LoRA section 7.2, equation 4. For
    W against delta W (Fig 8) give it the right singular vectors of both.
    """
    squares = _overlaps(U, V) ** 2
    i, j = np.indices(squares.shape) + 1
    phi: Array = squares.cumsum(axis=0).cumsum(axis=1) / np.minimum(i, j)
    return phi


def expected_similarity(i: ArrayLike, j: ArrayLike, d: int) -> Array:
    """E phi(i, j) = max(i, j) / d of two independent subspaces of R^d, one uniformly random: the value by chance."""
    chance: Array = np.maximum(np.asarray(i, dtype=float), np.asarray(j, dtype=float)) / d
    return chance


def grassmann(U: ArrayLike, V: ArrayLike) -> float:
    """d = sqrt(p - ||U^T V||_F^2), the projection distance of two subspaces, 0 to sqrt(p), with p = min(i, j).

    U (n, i), V (n, j): bases. phi(i, j) = 1 - d^2 / p. LoRA appendix G prints (1 / p)(1 - d^2), which does not follow
    from its own definitions: for p equal directions (d = 0) it would be 1 / p.
    """
    overlaps = _overlaps(U, V)
    return float(np.sqrt(max(0.0, min(overlaps.shape) - _norm(overlaps) ** 2)))


def projected_norm(W: ArrayLike, U: ArrayLike, V: ArrayLike) -> float:
    """||U^T W V||_F, how much of W (d, k) lies in the directions U (d, i) and V (k, j): a column of LoRA's Table 7.

    Its three columns take U and V from delta W, from W itself, and at random.
    """
    return _norm(_basis("U", U).T @ _matrix("W", W) @ _basis("V", V))


def amplification(U: ArrayLike, S: ArrayLike, V: ArrayLike, W: ArrayLike, rank: int | None = None) -> float:
    """||delta W||_F / ||U^T W V||_F: how much an update amplifies W in the update's directions.

    U, S, V: as `thin_svd` gives them, of which the first `rank` are used (None: those that are not 0, since the others
    have arbitrary directions). LoRA section 7.3 and appendix H.4: about 21 at r = 4 and 2 at r = 64. Infinite
    where W is zero there; NaN for an update that is zero.
    """
    u, s, v = _basis("U", U), _vector("S", S), _basis("V", V)
    used = numerical_rank(s) if rank is None else rank
    if used == 0:
        return float("nan")
    there = projected_norm(W, u[:, :used], v[:, :used])
    return _norm(s[:used]) / there if there > 0 else float("inf")


def numerical_rank(S: ArrayLike, slack: float = 1e-10) -> int:
    """The number of singular values above `slack` times the largest."""
    s = _vector("S", S)
    return int(np.sum(s > slack * s.max()))


def effective_rank(S: ArrayLike) -> float:
    """exp(H(S / sum S)), H the entropy: r for r equal singular values, 1 for one alone; NaN for zeros.

    Roy and Vetterli 2007, The effective rank, definition 1.
    """
    s = _vector("S", S)
    if not s.any():
        return float("nan")
    shares = s[s > 0] / s.sum()
    return float(np.exp(-np.sum(shares * np.log(shares))))


def stable_rank(S: ArrayLike) -> float:
    """||delta W||_F^2 / ||delta W||_2^2, from 1 to the rank; small singular values hardly count. NaN for zeros."""
    s = _vector("S", S)
    return float(np.sum((s / s.max()) ** 2)) if s.any() else float("nan")


def energy(S: ArrayLike) -> Array:
    """The share of ||delta W||_F^2 that the first 1, 2, ... singular directions hold, up to 1; NaN for zeros."""
    s = _vector("S", S)
    if not s.any():
        return np.full(len(s), np.nan)
    squares = np.cumsum((s / s.max()) ** 2)
    shares: Array = squares / squares[-1]
    return shares


def intruders(W: ArrayLike, delta: ArrayLike, top: int, eps: float) -> int:
    """Number of the first `top` left singular vectors of W + delta W whose |cosine| with each of W's is below eps.

    Intruder dimensions, Shuttleworth et al. 2024 (2410.21228), section 3 and algorithm 1. W, delta (d, k): dense. Where
    W is compared with many updates, take `left_basis(W)` once and call `intruders_among`.
    """
    tuned = left_basis(_matrix("W", W) + _matrix("delta", delta))
    if not 1 <= top <= tuned.shape[1]:
        raise ValueError(f"top: got {top}; W has {tuned.shape[1]} singular vectors")
    return intruders_among(left_basis(W), tuned[:, :top], eps)


def intruders_among(left: ArrayLike, tuned: ArrayLike, eps: float) -> int:
    """How many columns of `tuned` (d, top) have max |cosine| below eps with those of `left` (d, n), all of W's."""
    return int(np.sum(best_cosines(left, tuned) < eps))


def best_cosines(left: ArrayLike, tuned: ArrayLike) -> Array:
    """For each column of `tuned` (d, top) the largest |cosine| with a column of `left` (d, n); unit columns."""
    first, second = _matrix("left", left), _matrix("tuned", tuned)
    if len(first) != len(second):
        raise ValueError(f"left is {first.shape} and tuned is {second.shape}; columns of one length can be compared")
    for name, columns in (("left", first), ("tuned", second)):
        worst = np.abs(np.einsum("dn,dn->n", columns, columns) - 1).max()
        if worst > SLACK:
            raise ValueError(f"{name}: its columns do not have length 1 (a square is {worst:.2g} off)")
    best: Array = np.abs(first.T @ second).max(axis=0)
    return best


def _overlaps(U: ArrayLike, V: ArrayLike) -> Array:
    """U^T V, (i, j), of two bases of subspaces of one space."""
    first, second = _basis("U", U), _basis("V", V)
    if len(first) != len(second):
        raise ValueError(f"U is {first.shape} and V is {second.shape}; their columns must have one length")
    return first.T @ second


def _norm(values: Array) -> float:
    return float(np.linalg.norm(values))


def _basis(name: str, values: ArrayLike) -> Array:
    array = _matrix(name, values)
    worst = np.abs(array.T @ array - np.eye(array.shape[1])).max()
    if worst > SLACK:
        raise ValueError(f"{name}: its columns are not orthonormal (an entry of U^T U is {worst:.2g} off)")
    return array


def _matrix(name: str, values: ArrayLike) -> Array:
    return _checked(name, values, 2)


def _vector(name: str, values: ArrayLike) -> Array:
    array = _checked(name, values, 1)
    if (array < 0).any():
        raise ValueError(f"{name}: {array.min():g} is negative; singular values are not")
    return array


def _checked(name: str, values: ArrayLike, axes: int) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != axes or array.size == 0:
        raise ValueError(f"{name}: got shape {array.shape}; wanted {axes} axes and at least one entry")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: {(~np.isfinite(array)).sum()} of {array.size} entries are not finite")
    return array
