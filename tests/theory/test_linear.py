"""The linear model: the recursion equals training with autograd, and its exponents are those of the calculus."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from loralab.theory.gamma import QUANTITIES, RATES, Init, Optimizer, exponents
from loralab.theory.linear import TARGET, Start, fitted, largest_stable, losses, start, train

INITS: tuple[Init, ...] = ("A", "B")
OPTIMIZERS: tuple[Optimizer, ...] = ("sgd", "sign")
SETTINGS = list(itertools.product(INITS, OPTIMIZERS, RATES))
N, C = 2**10, 0.25
LARGE = range(40, 61, 4)


def by_autograd(init: Init, optimizer: Optimizer, lr_a: float, lr_b: float, steps: int, decay: float) -> Any:
    """Trains a and b of W* + b a^T on one x with autograd in float64; the initial and each step's quantities."""
    rng = np.random.default_rng(5)
    x, w = (torch.tensor(rng.standard_normal(N)) for _ in range(2))
    free = {"a": rng.standard_normal(N) / np.sqrt(N), "b": rng.standard_normal()}
    a = torch.tensor(free["a"] if init == "A" else np.zeros(N), requires_grad=True)
    b = torch.tensor(free["b"] if init == "B" else 0.0, dtype=torch.float64, requires_grad=True)
    target = w @ x + TARGET  # W* x, which is fixed, and the residual of y
    begin = Start(*(np.array([part.item()]) for part in (a @ x, b, x @ x, x.abs().sum())))
    found: dict[str, list[float]] = {name: [] for name in (*QUANTITIES, "b")}
    for step in range(steps):
        loss = ((w + b * a) @ x - target) ** 2 / 2
        moves = torch.autograd.grad(loss, [a, b])
        if optimizer == "sign":
            moves = tuple(move.sign() for move in moves)
        da, db = (-(decay**step) * lr * move for lr, move in zip((lr_a, lr_b), moves, strict=True))
        with torch.no_grad():
            parts = b * (da @ x), db * (a @ x), db * (da @ x)
            a += da
            b += db
            for name, value in zip(found, (*parts, b * (a @ x), a @ x, b), strict=True):
                found[name].append(float(value))
    return begin, found


@pytest.mark.parametrize(("init", "optimizer", "rates"), SETTINGS)
def test_the_recursion_is_training_the_vectors_with_autograd(init: Init, optimizer: Optimizer, rates: str) -> None:
    lr_a, lr_b = (C * N**gamma for gamma in RATES[rates])
    begin, found = by_autograd(init, optimizer, lr_a, lr_b, 3, decay=0.9)
    path = train(begin, lr_a, lr_b, steps=3, optimizer=optimizer, decay=0.9)
    for name, values in found.items():
        np.testing.assert_allclose(path[name][:, 0], values, rtol=1e-10, atol=1e-12 * max(map(abs, found["f"])))


@pytest.mark.parametrize("init", INITS)
def test_the_parts_are_the_papers_formulas_and_make_up_the_change_of_f(init: Init) -> None:
    begin = start(init, 64, 100, np.random.default_rng(0), vectors=True)
    lr_a, lr_b = 0.3 / 64, 0.2
    path = train(begin, lr_a, lr_b, steps=5)
    z, b = (np.concatenate([[first], path[name][:-1]]) for name, first in (("z", begin.z), ("b", begin.b)))
    error = b * z - TARGET
    np.testing.assert_allclose(path["delta1"], -lr_a * b**2 * error * begin.square, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(path["delta2"], -lr_b * z**2 * error, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(path["delta3"], lr_a * lr_b * error**2 * b * z * begin.square, rtol=1e-12, atol=1e-15)
    change = path["f"] - b * z
    np.testing.assert_allclose(path["delta1"] + path["delta2"] + path["delta3"], change, atol=1e-12)


@pytest.mark.parametrize(("init", "optimizer", "rates"), SETTINGS)
def test_exponents_at_large_n_are_those_of_the_calculus(init: Init, optimizer: Optimizer, rates: str) -> None:
    """Within .02, three seeds; T = 3. The draws of a seed are the same at each width."""
    decay = 1.0 if optimizer == "sgd" else 0.9  # see the next test
    predicted = exponents(init, optimizer, RATES[rates], 3)
    for seed in range(3):
        medians = []
        for log2_n in LARGE:
            lr_a, lr_b = (C * 2.0 ** (log2_n * gamma) for gamma in RATES[rates])
            begin = start(init, 2.0**log2_n, 256, np.random.default_rng(seed), vectors=False)
            path = train(begin, lr_a, lr_b, steps=3, optimizer=optimizer, decay=decay)
            medians.append([[np.median(np.abs(path[name][step])) for name in QUANTITIES] for step in range(3)])
        for step, name in itertools.product(range(3), QUANTITIES):
            found = fitted(LARGE, [each[step][QUANTITIES.index(name)] for each in medians])
            gamma = predicted[step][name]
            assert found == gamma or abs(found - gamma) < 0.02, (name, step + 1, found, gamma)


def test_equal_steps_of_sign_adam_cancel_where_the_calculus_says_root_n() -> None:
    """z_1 = lr ||x||_1 sign(b y) turns the sign of U, so z_2 = z_1 - lr ||x||_1 = 0: max ignores cancellation."""
    n = 2.0**40
    begin, rate = start("B", n, 100, np.random.default_rng(0), vectors=False), C * n**-0.5
    path = train(begin, rate, rate, steps=2, optimizer="sign")
    assert (path["z"][1] == 0).all() and exponents("B", "sign", (-0.5, -0.5), 2)[1]["z"] == 0.5
    path = train(begin, rate, rate, steps=2, optimizer="sign", decay=0.9)
    np.testing.assert_allclose(path["z"][1], 0.1 * path["z"][0])


def test_init_b_is_init_a_with_z_and_b_and_their_rates_exchanged() -> None:
    """The best λ / n of one init is therefore the inverse of the other's."""
    n = 2.0**12
    first, second = (start(init, n, 500, np.random.default_rng(3), vectors=False) for init in INITS)
    np.testing.assert_array_equal(first.z, second.b)
    path, mirrored = train(first, 0.4 / n, 0.1, steps=10), train(second, 0.1 / n, 0.4, steps=10)
    for name, other in (("z", "b"), ("b", "z"), ("delta1", "delta2"), ("delta3", "delta3"), ("f", "f")):
        np.testing.assert_allclose(path[name], mirrored[other], rtol=1e-9, atol=1e-12)


def test_z_need_not_be_made_of_vectors() -> None:
    n, rng = 32, np.random.default_rng(1)
    begin = start("A", n, 4000, rng, vectors=True)
    a, x = rng.standard_normal((4000, n)) / np.sqrt(n), rng.standard_normal((4000, n))
    for ours, theirs in ((begin.z, (a * x).sum(axis=1)), (begin.square, (x**2).sum(axis=1)),
                         (begin.absolute, np.abs(x).sum(axis=1))):  # fmt: skip
        assert stats.ks_2samp(ours, theirs).pvalue > 0.01
    assert stats.ks_2samp(begin.z / np.sqrt(begin.square), rng.standard_normal(4000) / np.sqrt(n)).pvalue > 0.01
    wide, limit = (start("A", 2**14, 64, np.random.default_rng(2), vectors=vectors) for vectors in (True, False))
    np.testing.assert_allclose(wide.square, limit.square, rtol=0.06)
    np.testing.assert_allclose(wide.absolute, limit.absolute, rtol=0.04)
    np.testing.assert_allclose(wide.z, limit.z, rtol=0.04)


def test_a_fixed_b_is_stable_up_to_twice_the_inverse_of_its_curvature() -> None:
    """U' = (1 - lr_a b^2 ||x||^2) U if lr_b = 0."""
    b = np.array([0.5, 1.0, 2.0, 100.0])
    begin = Start(np.zeros(4), b, np.full(4, 64.0), np.full(4, 50.0))
    rates = 2.0 ** np.arange(-12, 0, 0.25)
    last = largest_stable(begin, rates, 0.0, steps=10)
    limits = 2 / (b**2 * 64)
    assert last[-1] == -1 and limits[-1] < rates[0], "none of the rates is"
    for at, limit in zip(last[:-1], limits, strict=False):
        assert rates[at] <= limit < rates[at] * 2**0.3
    assert (largest_stable(begin, rates / 1e9, 0.0, steps=10) == len(rates) - 1).all(), "all of them are"


def test_what_diverged_has_an_infinite_loss() -> None:
    path = train(Start(*np.full((4, 1), 2.0)), 1e100, 1e100, steps=6)
    assert losses(path)[-1] == np.inf and not np.isnan(losses(path)).any()
    np.testing.assert_allclose(losses({"f": np.array([0.0, 3.0])}), [0.5, 2.0])


def test_a_slope_is_that_of_a_power_and_zero_has_none() -> None:
    n = [3, 5, 9]
    assert fitted(n, [-7 * 2.0 ** (-1.5 * each) for each in n]) == pytest.approx(-1.5)
    assert fitted(n, [0, 0, 0]) == -np.inf and np.isnan(fitted(n, [0, 1, 2]))
