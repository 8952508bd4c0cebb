"""The network of Figure 2: its training equals gradient descent with autograd, and pairs of rates are independent."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from loralab.theory.mlp import gradients, outputs, problem, train

SMALL: dict[str, Any] = {"n": 16, "rank": 3, "rows": (50, 20)}
DOUBLE: dict[str, Any] = {**SMALL, "dtype": torch.float64}
PAIRS = ((1e-3, 1e-3), (2e-2, 1e-3), (1e-3, 0.3), (1e-2, 0.1))  # lr_A, lr_B
LR_A, LR_B = (np.array(rates) for rates in zip(*PAIRS, strict=True))


def network(A_rn: Tensor, B_nr: Tensor, h_nt: Tensor, w_n: Tensor) -> Tensor:
    """f by its definition, for one pair."""
    return w_n @ torch.relu(B_nr @ A_rn @ h_nt)


@pytest.mark.parametrize("chunk", [10**6, 16 * 5 * 7, 1], ids=["whole", "parts of seven", "one example at a time"])
def test_gradients_equal_autograds(chunk: int) -> None:
    p = problem(0, 16, rank=3, rows=(50, 20), dtype=torch.float64)
    rng = torch.Generator().manual_seed(1)
    shapes = ((5, *p.A_rn.shape), (5, *p.B_nr.shape))
    A, B = (torch.randn(shape, generator=rng, dtype=torch.float64, requires_grad=True) for shape in shapes)
    losses = torch.stack([(network(a, b, p.h_nt, p.w_n) - p.y_t).square().mean() for a, b in zip(A, B, strict=True)])
    expected = torch.autograd.grad(losses.sum(), (A, B))
    loss, dA, dB = gradients(A.detach(), B.detach(), p.h_nt, p.y_t, p.w_n, chunk=chunk)
    for found, wanted in ((loss, losses.detach()), (dA, expected[0]), (dB, expected[1])):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(outputs(A, B, p.h_nt, p.w_n)[3], network(A[3], B[3], p.h_nt, p.w_n), rtol=1e-10, atol=0)


def test_training_is_gradient_descent_with_a_rate_for_each_factor() -> None:
    at = (0, 1, 5, 20)
    found = train(LR_A, LR_B, at, seeds=(3,), **DOUBLE)
    p = problem(3, 16, rank=3, rows=(50, 20), dtype=torch.float64)
    for pair, (lr_A, lr_B) in enumerate(PAIRS):
        A, B = (weight.clone().requires_grad_() for weight in (p.A_rn, p.B_nr))
        optimizer = torch.optim.SGD([{"params": [A], "lr": lr_A}, {"params": [B], "lr": lr_B}])
        for step in range(max(at) + 1):
            loss = (network(A, B, p.h_nt, p.w_n) - p.y_t).square().mean()
            if step in at:
                test = (network(A, B, p.test_h_nt, p.w_n) - p.test_y_t).square().mean()
                row = (0, pair, at.index(step))
                assert (found.train[row], found.test[row]) == pytest.approx((loss.item(), test.item()), rel=1e-9)
            A.grad, B.grad = torch.autograd.grad(loss, (A, B))
            optimizer.step()


def test_the_problem_is_the_papers() -> None:
    p = problem(0, 4000, rank=4, rows=(3000, 7), dtype=torch.float64)
    assert p.h_nt.shape == (4000, 3000) and p.test_h_nt.shape == (4000, 7) and (p.h_nt >= 0).all()
    assert p.h_nt.square().mean().item() == pytest.approx(5 / 2, rel=0.05)  # half of d * var x * var W_in
    assert (p.A_rn * 4000**0.5).std().item() == pytest.approx(1, rel=0.02)
    assert (p.w_n * 4000**0.5).std().item() == pytest.approx(1, rel=0.05)
    assert p.B_nr.std().item() == pytest.approx(1, rel=0.02)
    # sum(x) / d ~ N(0, 1/5), and E sin(z)^2 = (1 - exp(-2 var)) / 2
    assert p.y_t.square().mean().item() == pytest.approx((1 - np.exp(-2 / 5)) / 2, rel=0.1)


def test_a_seed_has_the_same_examples_at_every_width_and_another_seed_has_others() -> None:
    narrow, wide, other = problem(0, 8), problem(0, 64), problem(1, 8)
    assert torch.equal(narrow.y_t, wide.y_t) and torch.equal(narrow.test_y_t, wide.test_y_t)
    assert not torch.isclose(narrow.y_t, other.y_t).all() and not torch.isclose(narrow.A_rn, other.A_rn).all()
    assert narrow.y_t.dtype == torch.float32
    double = problem(0, 8, dtype=torch.float64)
    for some, whole in zip(vars(narrow).values(), vars(double).values(), strict=True):
        assert torch.equal(some, whole.float())


def test_where_a_factor_starts_at_zero_nothing_would_train() -> None:
    p = problem(0, 16, dtype=torch.float64)
    for A, B in ((p.A_rn, torch.zeros_like(p.B_nr)), (torch.zeros_like(p.A_rn), p.B_nr)):
        A, B = (weight[None].clone().requires_grad_() for weight in (A, B))
        loss = (outputs(A, B, p.h_nt, p.w_n) - p.y_t).square().mean()
        by_hand = gradients(A.detach(), B.detach(), p.h_nt, p.y_t, p.w_n)[1:]
        for gradient in (*torch.autograd.grad(loss, (A, B)), *by_hand):
            assert (gradient == 0).all()


@pytest.mark.parametrize("chunk", [10**6, 16 * 50 * 3, 16 * 50], ids=["all", "three", "one"])
def test_pairs_together_equal_each_alone(chunk: int) -> None:
    together = train(LR_A, LR_B, (2, 30), seeds=(0, 1), chunk=chunk, **DOUBLE)
    for pair, (lr_A, lr_B) in enumerate(PAIRS):
        for row, seed in enumerate((0, 1)):
            alone = train([lr_A], [lr_B], (2, 30), seeds=(seed,), **DOUBLE)
            for some, own in zip(together, alone, strict=True):
                np.testing.assert_allclose(some[row, pair], own[0, 0], rtol=1e-9)
    assert len(np.unique(together.train)) == together.train.size


def test_a_diverged_pair_is_nan_from_then_on_and_changes_no_other() -> None:
    at = (0, 1, 2, 10, 30)
    wild_A, wild_B = (np.insert(rates, [0, 2, 4], [1e3, 50.0, 1e9]) for rates in (LR_A, LR_B))
    sound = train(LR_A, LR_B, at, seeds=(0, 1), **DOUBLE)
    mixed = train(wild_A, wild_B, at, seeds=(0, 1), **DOUBLE)
    left = [1, 2, 4, 5]
    for some, whole in zip(sound, mixed, strict=True):
        np.testing.assert_allclose(whole[:, left], some, rtol=1e-9)
    gone = np.delete(mixed.train, left, axis=1)
    assert np.isfinite(gone[:, :, 0]).all() and np.isnan(gone[:, :, -1]).any() and np.isfinite(sound.train).all()
    lost = np.isnan(gone)
    assert (lost[:, :, 1:] >= lost[:, :, :-1]).all()


def test_single_precision_is_enough() -> None:
    single, double = (
        train(LR_A, LR_B, (10, 100), seeds=(0,), **{**SMALL, "dtype": of}) for of in (torch.float32, torch.float64)
    )
    np.testing.assert_allclose(single.train, double.train, rtol=1e-3)


def test_losses_of_a_seed_stay_what_they_are() -> None:
    found = train([1e-3, 1e-2], [1e-1, 1e-2], (0, 1, 10), n=32, seeds=(0, 7), dtype=torch.float64)
    golden = [
        [[0.4866724379, 0.4220174027, 0.2323865562], [0.4866724379, 0.4219670938, 0.2311685323]],
        [[1.8897444994, 1.3582460466, 0.3320019603], [1.8897444994, 1.0621281112, 0.3053988408]],
    ]
    np.testing.assert_allclose(found.train, golden, rtol=1e-6)


def test_a_mistake_is_told() -> None:
    with pytest.raises(ValueError, match=r"lr_A has shape \(2,\) and lr_B has \(3,\); they must be rows of pairs"):
        train([1, 2], [1, 2, 3], [0], n=8, seeds=[0])
