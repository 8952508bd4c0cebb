"""The best lr_A in closed form. Init A: s r λ lr_A (lr_A + a) = c^2; init B: s r lr_A (λ lr_A + b) = c^2.

Adam moves every entry of A by about lr_A a step and every entry of B by lr_B = λ lr_A, whatever the gradient's size.
The function then changes by s r times the product of both movements, and by s r times the movement of the factor that
is zero at the start and the other's random start (a for A, b for B). The best rate keeps the sum at a constant c^2, of
the backbone and the targets. With init A and λ <= 16, a is negligible: lr_A = c / sqrt(r λ s). With s = alpha/r the
rank cancels.

c^-2 adds over the roles of the targets: each role's maps change the function by an amount of their own.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

__all__ = ["MINILM", "MINILM_WIDTH", "ROLES", "SCALINGS", "c_of", "lr_A", "over_steps", "rates_at"]

ROLES = ("q", "k", "v", "o", "mlp")
SCALINGS: Mapping[str, Callable[[float, int], float]] = {
    "alpha/r": lambda alpha, rank: alpha / rank,
    "alpha/sqrt_r": lambda alpha, rank: alpha / math.sqrt(rank),  # rsLoRA, Kalajdzievski 2023
    "constant": lambda alpha, _rank: alpha,
}
"""s, the factor of B A, by lora.scaling: a function of alpha and the rank."""

# Fitted to 103 tuned arms of MiniLM (width 384, batches of 16 or 32, linear schedule, 100 steps; IMDb 63) with both
# inits, in the studies ratio, rank, rank_ratio, targets, methods, low_data, ratio_head (pinned) and ratio_imdb. It
# predicts all within a factor of 2; the root mean square is .39 doublings, and .25 given each task's level, which is
# 1.25 (TREC), .89 (Rotten Tomatoes) and .83 (IMDb): these are means over the tasks. k, o and mlp are from TREC alone.
# The best power of r, λ and s misses one arm in 25 by more than 2, all at λ >= 32 or with init B.
MINILM: Mapping[str, float] = {"q": 0.031, "k": 0.029, "v": 0.019, "o": 0.026, "mlp": 0.010, "head": 4.0e-3}
"""MiniLM's c at 100 steps by role, and its head's rate (out of 1e-3, 4e-3 and 1.6e-2)."""
MINILM_WIDTH = 384
START_A = 0.30  # a times the width, fitted with c; it matters from λ = 32 on
START_B = 0.013  # b times sqrt(r), fitted at r = 8; B starts at about 1/sqrt(r)
REFERENCE_STEPS = 100
# The study horizon (TREC, 25 to 800 steps): -.74 [-.92, -.56] with λ 1, 4 and 16, and -.56 [-.67, -.45] without the
# runs of 800 steps, which are eight epochs and overfit.
FALL = 0.6
FALLING = (25, 2500)  # steps; see over_steps


def rates_at(width: int, measured: Mapping[str, float], *, widen: int = 1) -> dict[str, float]:
    """c of each role, and `head`: as `measured`, else MiniLM's carried to another width, which is a guess.

    widen: how many copies of its units the backbone has now, and had not when its rates were measured. Copying every
    unit of a backbone k times keeps its training if lr_A and the head's rate are divided by k (under Adam, with the
    random start of A divided by k; loralab.backbones.widen): c, a root of lr_A lr_B, falls as 1/sqrt(width), the head's
    as 1/width. That another backbone is like a widened MiniLM is assumed.
    """
    return _carried(MINILM, MINILM_WIDTH / width) | _carried(measured, 1 / widen)


def _carried(rates: Mapping[str, float], relative: float) -> dict[str, float]:
    """The rates of a backbone with copied units; relative: the narrow width / the wide one."""
    return {role: rate * (relative if role == "head" else math.sqrt(relative)) for role, rate in rates.items()}


def c_of(targets: Iterable[str], rates: Mapping[str, float]) -> float:
    """c of a set of targets: (sum over their roles of c_role^-2)^(-1/2). A glob counts as `all`, the lowest c."""
    named = set(targets)
    roles = named if named <= set(ROLES) else set(ROLES)
    return 1 / math.sqrt(sum(rates[role] ** -2 for role in roles))


def lr_A(  # noqa: N802  # the papers' name
    c: float, *, s: float, rank: int, ratio: float, init: Literal["A", "B"], width: int, steps: int
) -> float:
    """The positive root lr_A of the law at 100 steps, times `over_steps(steps)`.

    c: at 100 steps, as from `c_of`; s: the scaling of B A; width: the backbone's.
    """
    change = c**2 / (s * rank)
    start = ratio * START_A / width if init == "A" else START_B / math.sqrt(rank)
    root = 2 * change / (start + math.sqrt(start**2 + 4 * ratio * change))
    return root * over_steps(steps)


def over_steps(steps: int) -> float:
    """(steps / 100)^-FALL, the fall of the best rates with the length of a run; outside FALLING as at its ends.

    Measured to 800 steps. Runs of 6,000 to 740,000 steps have one rate in LoRA's Table 9, so the fall must end: held
    from 2,500 steps on, the law is 1.1 to 1.4 times the eight rates there (RoBERTa-base).
    """
    fewest, most = FALLING
    return math.pow(min(max(steps, fewest), most) / REFERENCE_STEPS, -FALL)
