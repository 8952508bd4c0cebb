"""`optim.lr: auto` -> numbers, by the rate law (loralab.theory.rate_law); and how a run's rate compares with the law's.

Imports no torch, for `loralab show`.
"""

from typing import Literal, cast

from loralab.config.schema import METHODS, Config
from loralab.theory import rate_law

__all__ = ["advice", "has_factors", "law_rates", "rates_line", "resolved_rates", "steps_of"]

SCALED = ("head", "full")  # methods without A and B that train matrices, whose rates fall as 1/width
DIGITS = 3  # of a resolved rate: it can be typed again, and no platform's last bit is in a run's hash


def steps_of(epochs: float | None, steps: int | None, *, per_epoch: int) -> int:
    """The number of steps of a run; per_epoch: of one epoch, the last batch of which may be short."""
    return steps if steps is not None else max(1, round(cast(float, epochs) * per_epoch))


def has_factors(config: Config) -> bool:
    """Whether the method trains A and B."""
    return "lora" in METHODS[config.method.name]


def law_rates(config: Config, *, width: int, steps: int) -> tuple[float, float]:
    """The law's lr_A and the head's rate, to three digits; width: the backbone's; steps: of the run."""
    lora = config.lora
    rates = rate_law.rates_at(width, config.model.rates, widen=config.model.widen)
    rank = max([lora.rank, *lora.rank_pattern.values()])  # rates fall with the rank, and too low costs less
    lr = rate_law.lr_A(
        rate_law.c_of(lora.targets, rates),
        s=_scaling(config, rank),
        rank=rank,
        ratio=lora.ratio,
        init=cast(Literal["A", "B"], lora.init),
        width=width,
        steps=steps,
    )
    return _rounded(lr), _rounded(rates["head"] * rate_law.over_steps(steps))


def resolved_rates(config: Config, *, width: int, steps: int | None) -> tuple[float, float]:
    """lr_A and the head's rate as the run trains them; steps: needed where lr is auto and the method has A and B.

    With lr a number, or without A and B, a null head_lr is lr: a head of its own kind has no other rate. Beside A and B
    by the law it has one: lr_A falls with rank and λ, which are nothing to the head.
    """
    optim = config.optim
    if not isinstance(optim.lr, str):
        lr = head = float(optim.lr)
    elif not has_factors(config):
        lr = head = config.model.default_lr / (config.model.widen if config.method.name in SCALED else 1)
    else:
        assert steps is not None
        lr, head = law_rates(config, width=width, steps=steps)
    return lr, head if optim.head_lr is None else optim.head_lr


def rates_line(config: Config, *, width: int | None, steps: int) -> str | None:
    """λ, s λ and lr_A of a planned run, and the law's lr_A; None for a method without A and B, and before the plan.

    width: the backbone's, None where it is unknown (records of older versions): then without the law's.
    """
    lora, lr = config.lora, config.optim.lr
    if not has_factors(config) or isinstance(lr, str):
        return None
    parts = f"λ {lora.ratio:g}, s λ {_scaling(config, lora.rank) * lora.ratio:.3g}, lr_A {lr:.3g}"
    if width is None:
        return parts
    law, _ = law_rates(config, width=width, steps=steps)
    return f"{parts} ({'' if lr == law else f'{law:.3g} is '}the rate law's)"


def advice(config: Config, *, width: int, steps: int) -> str:
    """What to change in a planned run that diverged: lr_A, to the law's or to half of what it is; and the clipping."""
    lr = float(config.optim.lr)
    law = law_rates(config, width=width, steps=steps)[0] if has_factors(config) else lr
    if lr > law:
        change = f"optim.lr={lr:.3g} is {lr / law:.2g} times the rate law's; try optim.lr=auto, which is {law:.3g}"
    else:
        change = f"try optim.lr={lr / 2:.2g}, half of what it was"
    clip = ", and optim.clip=1, which limits the gradient" if config.optim.clip is None else ""
    return f"the run diverged: {change}{clip}"


def _scaling(config: Config, rank: int) -> float:
    return rate_law.SCALINGS[config.lora.scaling](config.lora.alpha, rank)


def _rounded(rate: float) -> float:
    return float(f"{rate:.{DIGITS}g}")
