"""The calculus implies LoRA+'s statements about the linear model, for both inits and both optimizers."""

import itertools
import math
import random

import pytest

from loralab.theory.gamma import QUANTITIES, RATES, Init, Optimizer, exponents

DELTAS = ("delta1", "delta2", "delta3")
INITS: tuple[Init, ...] = ("A", "B")
OPTIMIZERS: tuple[Optimizer, ...] = ("sgd", "sign")


@pytest.mark.parametrize(("init", "optimizer"), list(itertools.product(INITS, OPTIMIZERS)))
def test_rates_of_order_1_over_n_and_1_make_every_part_of_order_1(init: Init, optimizer: Optimizer) -> None:
    """Proposition 2 for SGD, Theorem 1 for sign-Adam; t > 1."""
    first, *later = exponents(init, optimizer, (-1.0, 0.0), 10)
    assert first["f"] == first["z"] == 0
    assert all(step == dict.fromkeys(QUANTITIES, 0.0) for step in later)


def test_one_rate_of_order_n_to_the_minus_half_is_too_small_for_init_a_and_too_large_for_init_b() -> None:
    """Proposition 1: f = Theta(n^-1/2), or n^1/2 at the first step and more at each later one."""
    assert [step["f"] for step in exponents("A", "sgd", (-0.5, -0.5), 10)] == [-0.5] * 10
    assert all(step[delta] == -0.5 for step in exponents("A", "sgd", (-0.5, -0.5), 10)[1:] for delta in DELTAS)
    grown = [step["f"] for step in exponents("B", "sgd", (-0.5, -0.5), 4)]
    assert grown[0] == 0.5 and all(a < b for a, b in itertools.pairwise(grown))


def test_one_rate_of_order_1_over_n_starves_b() -> None:
    for init, optimizer in itertools.product(INITS, OPTIMIZERS):
        assert exponents(init, optimizer, (-1.0, -1.0), 3)[-1]["delta2"] == -1
    assert exponents("A", "sgd", (-1.0, -1.0), 3)[-1]["f"] == -1
    assert exponents("B", "sgd", (-1.0, -1.0), 3)[-1]["f"] == 0, "init B learns by A alone"


def test_sign_adam_lets_init_a_have_one_rate_of_order_n_to_the_minus_half_at_the_price_of_z() -> None:
    """f is of order 1, as in the Init paper, with z = a^T x of order n^1/2, which LoRA+ calls unstable."""
    found = exponents("A", "sign", (-0.5, -0.5), 10)
    assert [step["f"] for step in found] == [-0.5] + [0.0] * 9 and [step["z"] for step in found] == [0.0] + [0.5] * 9


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_what_starts_at_0_does_not_move_the_other_factor_at_the_first_step(optimizer: Optimizer) -> None:
    for rates in RATES.values():
        first = exponents("A", optimizer, rates, 1)[0]
        assert (first["delta1"], first["delta3"], first["z"]) == (-math.inf, -math.inf, 0)
        first = exponents("B", optimizer, rates, 1)[0]
        assert (first["delta2"], first["delta3"]) == (-math.inf, -math.inf)


def test_larger_rates_never_make_anything_smaller() -> None:
    rng = random.Random(0)
    for _ in range(200):
        a, b = rng.uniform(-2, 1), rng.uniform(-2, 1)
        for init, optimizer in itertools.product(INITS, OPTIMIZERS):
            less = exponents(init, optimizer, (a, b), 4)
            more = exponents(init, optimizer, (a + rng.random(), b + rng.random()), 4)
            assert all(y[name] >= x[name] for x, y in zip(less, more, strict=True) for name in QUANTITIES)
