"""gamma[v v'] = gamma[v] + gamma[v'], gamma[v + v'] = max: exponents of width by the calculus of LoRA+ (section 3).

v = Theta(n^gamma[v]); gamma[0] = -inf. Applied to the linear model of loralab.theory.linear, every step of which is a
sum of products. A sum has the order of its larger term unless the terms cancel, which the calculus ignores.
"""

import math
from typing import Literal

__all__ = ["QUANTITIES", "RATES", "Init", "Optimizer", "exponents"]

Init = Literal["A", "B"]
Optimizer = Literal["sgd", "sign"]

QUANTITIES = ("delta1", "delta2", "delta3", "f", "z")
RATES: dict[str, tuple[float, float]] = {  # the exponents of lr_a and lr_b
    "1/n and 1": (-1.0, 0.0),
    "1/sqrt(n)": (-0.5, -0.5),
    "1/n": (-1.0, -1.0),
}
NORM = 1.0  # of ||x||^2 and of ||x||_1, with entries of order 1
TARGET = 0.0  # of y


def exponents(init: Init, optimizer: Optimizer, rates: tuple[float, float], steps: int) -> list[dict[str, float]]:
    """For each step, gamma of each of QUANTITIES: delta1..3 of the step, f = b z and z after it.

    rates: the exponents of (lr_a, lr_b). Init A: z = Theta(1), b = 0; init B: b = Theta(1), z = 0.
    """
    z, b = (0.0, -math.inf) if init == "A" else (-math.inf, 0.0)
    lr_a, lr_b = rates
    found = []
    for _ in range(steps):
        error = max(b + z, TARGET)
        moved_z = lr_a + NORM + (b + error if optimizer == "sgd" else _sign(b))
        moved_b = lr_b + (z + error if optimizer == "sgd" else _sign(z))
        deltas = {"delta1": b + moved_z, "delta2": z + moved_b, "delta3": moved_b + moved_z}
        z, b = max(z, moved_z), max(b, moved_b)
        found.append(deltas | {"f": b + z, "z": z})
    return found


def _sign(gamma: float) -> float:
    """Of the sign of a factor: 0, or -inf where the factor is 0."""
    return 0.0 if gamma > -math.inf else -math.inf
