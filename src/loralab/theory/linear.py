"""f(x) = (W* + b a^T) x, L = (f - y)^2 / 2, one sample: training is a recursion in z = a^T x and b (LoRA+, section 3).

x and a have n entries, b is a number: r = 1. W* x is a constant, so y stands for what it leaves of the target, of order
1, and f for the adapter's part b z. With U = f - y, the gradients are U b x for a and U z for b, so

    SGD:        z -= lr_a b U ||x||^2          b -= lr_b z U
    sign-Adam:  z -= lr_a sign(b U) ||x||_1    b -= lr_b sign(z U)

sign-Adam is Adam with betas 0 and eps 0: a -= lr_a sign(U b x) entry by entry, and sign(x)^T x = ||x||_1; sign(0) is 0.
No vector is needed, so the width can be any number: given x, z_0 of init A is N(0, ||x||^2 / n), whatever n is.
Where ||x||^2 = n, SGD treats (n lr_a, b) and (lr_b, z) alike: init B is init A with the two exchanged.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from loralab.theory.gamma import Init, Optimizer

__all__ = ["TARGET", "Start", "fitted", "largest_stable", "losses", "start", "train"]

Array = NDArray[np.float64]
TARGET = 1.0  # y


@dataclass(frozen=True)
class Start:
    """Draws of the model before training: z, b, and of their inputs ||x||^2 and ||x||_1."""

    z: Array
    b: Array
    square: Array
    absolute: Array

    def each(self, axes: int) -> "Start":
        """Adds this many axes of length 1 before that of the draws, for rates that vary along them."""
        return Start(*(part.reshape((1,) * axes + part.shape) for part in (self.z, self.b, self.square, self.absolute)))


def start(init: Init, n: float, draws: int, rng: np.random.Generator, *, vectors: bool) -> Start:
    """Init A: z = a^T x of a with variance 1/n, b = 0. Init B: b of variance 1, z = 0. x has entries N(0, 1).

    vectors: the norms are those of inputs that are drawn; else their limits, n and n sqrt(2 / pi), which differ by a
    share of order n^-1/2. a need not be drawn: given x, z is N(0, ||x||^2 / n). The draws of z sqrt(n) / ||x|| (of b)
    come first, so that an rng in the same state has the same ones at every width.
    """
    free, zero = rng.standard_normal(draws), np.zeros(draws)
    if vectors:
        x_dn = rng.standard_normal((draws, int(n)))
        square, absolute = np.einsum("dn,dn->d", x_dn, x_dn), np.abs(x_dn, out=x_dn).sum(axis=1)
    else:
        square, absolute = np.full(draws, float(n)), np.full(draws, n * np.sqrt(2 / np.pi))
    z, b = (free * np.sqrt(square / n), zero) if init == "A" else (zero, free)
    return Start(z, b, square, absolute)


def train(
    begin: Start,
    lr_a: ArrayLike,
    lr_b: ArrayLike,
    *,
    steps: int,
    optimizer: Optimizer = "sgd",
    decay: float = 1.0,
    y: float = TARGET,
) -> dict[str, Array]:
    """Each quantity at each step, (steps, ...): delta1, delta2, delta3 of the step; f, z and b after it.

    f' - f = delta1 + delta2 + delta3 with delta1 = b Δz, delta2 = z Δb, delta3 = Δb Δz; for SGD these are the paper's
    -lr_a b^2 U ||x||^2, -lr_b z^2 U and lr_a lr_b U^2 b z ||x||^2. decay: what the rates are multiplied by after each
    step. What overflows is inf or NaN.
    """
    z, b = begin.z, begin.b
    scale = 1.0
    found: dict[str, list[Array]] = {name: [] for name in ("delta1", "delta2", "delta3", "f", "z", "b")}
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(steps):
            error = b * z - y
            if optimizer == "sgd":
                moved_z, moved_b = b * error * begin.square, z * error
            else:
                moved_z, moved_b = np.sign(b * error) * begin.absolute, np.sign(z * error)
            moved_z, moved_b = -scale * np.asarray(lr_a) * moved_z, -scale * np.asarray(lr_b) * moved_b
            deltas = b * moved_z, z * moved_b, moved_b * moved_z
            z, b, scale = z + moved_z, b + moved_b, scale * decay
            for name, value in zip(found, (*deltas, b * z, z, b), strict=True):
                found[name].append(value)
    return {name: np.stack(np.broadcast_arrays(*values)) for name, values in found.items()}


def losses(path: dict[str, Array], *, y: float = TARGET) -> Array:
    """(f - y)^2 / 2 after each step; inf where the run diverged."""
    with np.errstate(over="ignore", invalid="ignore"):
        found = (path["f"] - y) ** 2 / 2
    return np.where(np.isfinite(found), found, np.inf)


def fitted(log2_n: Sequence[float], values: ArrayLike) -> float:
    """The slope of log2 |value| against log2 n, by least squares; -inf where all are 0, nan where only some are."""
    array = np.abs(np.asarray(values, dtype=float))
    if (array == 0).any():
        return -np.inf if (array == 0).all() else np.nan
    return float(np.polyfit(log2_n, np.log2(array), 1)[0])


def largest_stable(
    begin: Start, lr_a: ArrayLike, lr_b: ArrayLike, *, steps: int, optimizer: Optimizer = "sgd", y: float = TARGET
) -> NDArray[np.intp]:
    """For each draw, which of the increasing rates is the last before the first unstable one; -1 where none is.

    lr_a, lr_b: rates, one of them may be a number. Unstable: the mean loss of the last half of the steps is above that
    before the first, y^2 / 2, which is what predicting 0 has.
    """
    rates = np.broadcast_arrays(np.atleast_1d(lr_a), np.atleast_1d(lr_b))
    path = train(begin.each(1), rates[0][:, None], rates[1][:, None], steps=steps, optimizer=optimizer, y=y)
    late = losses(path, y=y)[steps // 2 :].mean(axis=0)
    unstable = late > y**2 / 2
    first: NDArray[np.intp] = np.where(unstable.any(axis=0), unstable.argmax(axis=0), len(late))
    return first - 1
