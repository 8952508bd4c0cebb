"""The spectra equal those of the dense matrix, and known answers."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from loralab.inspect import spectra
from loralab.inspect.spectra import ThinSVD, similarity, thin_svd

Array = NDArray[np.float64]
D, K, R = 30, 20, 4


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def factors(rng: np.random.Generator, r: int = R) -> tuple[Array, Array]:
    """A (r, k) and B (d, r)."""
    return rng.standard_normal((r, K)), rng.standard_normal((D, r))


def axes(*which: int, n: int = 6) -> Array:
    """A basis of coordinate axes, so that overlaps can be counted by hand."""
    return np.eye(n)[:, list(which)]


@pytest.mark.parametrize("scaling", [0.25, 1.0, 16.0])
@pytest.mark.parametrize("r", [1, R, K, K + 5])
def test_the_thin_svd_is_that_of_the_dense_update(r: int, scaling: float, rng: np.random.Generator) -> None:
    A, B = factors(rng, r)
    U, S, V = thin_svd(A, B, scaling)
    p = min(r, K)
    assert (U.shape, S.shape, V.shape) == ((D, p), (p,), (K, p))
    np.testing.assert_allclose(U * S @ V.T, scaling * B @ A, atol=1e-12 * scaling * D)
    np.testing.assert_allclose(S, np.linalg.svd(scaling * B @ A, compute_uv=False)[:p], rtol=1e-10)
    for basis in (U, V):
        np.testing.assert_allclose(basis.T @ basis, np.eye(p), atol=1e-12)


def test_an_untrained_adapter_has_no_spectrum_but_orthonormal_vectors(rng: np.random.Generator) -> None:
    A, _ = factors(rng)
    U, S, V = thin_svd(A, np.zeros((D, R)), 2.0)
    assert not S.any()
    for basis in (U, V):
        np.testing.assert_allclose(basis.T @ basis, np.eye(R), atol=1e-12)
    assert spectra.numerical_rank(S) == 0
    assert np.isnan([spectra.effective_rank(S), spectra.stable_rank(S), *spectra.energy(S)]).all()
    assert np.isnan(spectra.amplification(U, S, V, rng.standard_normal((D, K))))


def test_the_spectrum_belongs_to_the_update_and_not_to_its_factors(rng: np.random.Generator) -> None:
    A, B = factors(rng)
    M = rng.standard_normal((R, R))
    one, other = thin_svd(A, B, 0.5), thin_svd(M @ A, B @ np.linalg.inv(M), 0.5)
    np.testing.assert_allclose(one.S, other.S, rtol=1e-9)
    for first, second in ((one.U, other.U), (one.V, other.V)):
        np.testing.assert_allclose(np.abs(np.diag(first.T @ second)), 1, atol=1e-9)
    sides = similarity(spectra.right_basis(A), spectra.right_basis(M @ A))
    assert sides[0, 0] < 0.99 and sides[-1, -1] == pytest.approx(1), "A's own vectors do change; its row space does not"


def test_the_sides_are_the_singular_vectors_of_the_factors(rng: np.random.Generator) -> None:
    A, B = factors(rng)
    right, left = spectra.right_basis(A), spectra.left_basis(B)
    assert (right.shape, left.shape) == ((K, R), (D, R))
    for basis, gram in ((right, A.T @ A), (left, B @ B.T)):
        found = basis.T @ gram @ basis
        assert (np.diff(np.diag(found)) < 0).all(), "the most important first"
        np.testing.assert_allclose(found, np.diag(np.diag(found)), atol=1e-10)


def test_phi_at_every_i_and_j_is_the_papers_formula(rng: np.random.Generator) -> None:
    U, V = (spectra.random_basis(D, r, rng) for r in (5, 8))
    phi = similarity(U, V)
    assert phi.shape == (5, 8)
    for i in range(1, 6):
        for j in range(1, 9):
            expected = np.linalg.norm(U[:, :i].T @ V[:, :j]) ** 2 / min(i, j)
            assert phi[i - 1, j - 1] == pytest.approx(expected, abs=1e-12)


def test_equal_orthogonal_and_nested_subspaces_have_the_phi_that_counting_gives() -> None:
    np.testing.assert_allclose(np.diag(similarity(axes(0, 1, 2), axes(0, 1, 2))), 1)
    assert not similarity(axes(0, 1, 2), axes(3, 4, 5)).any()
    np.testing.assert_allclose(similarity(axes(1), axes(0, 1, 2)), [[0, 1, 1]])  # nested from j = 2 on
    np.testing.assert_allclose(similarity(axes(0, 1), axes(1, 0)), [[0, 1], [1, 1]])  # one plane, axes exchanged
    np.testing.assert_allclose(similarity(axes(0, 1), axes(1, 2)), [[0.0, 0.0], [1.0, 0.5]])


def test_an_adapter_is_wholly_similar_to_itself(rng: np.random.Generator) -> None:
    A, B = factors(rng)
    U, _, V = thin_svd(A, B, 1.0)
    for basis in (U, V, spectra.right_basis(A), spectra.left_basis(B)):
        phi = similarity(basis, basis)
        np.testing.assert_allclose(phi, 1, atol=1e-12)
        assert spectra.grassmann(basis, basis) == pytest.approx(0, abs=1e-6)


def test_two_random_adapters_overlap_as_chance_says() -> None:
    """phi(i, j) = max(i, j) / d at every i and j, within three standard errors of 400 draws."""
    rng, draws = np.random.default_rng(7), 400
    kinds: list[Callable[[Array, Array], tuple[Array, int]]] = [
        lambda A, _: (spectra.right_basis(A), K),
        lambda _, B: (spectra.left_basis(B), D),
        lambda A, B: (thin_svd(A, B, 1.0).U, D),
        lambda A, B: (thin_svd(A, B, 1.0).V, K),
    ]
    for kind in kinds:
        found = []
        for _ in range(draws):
            (first, n), (second, _) = kind(*factors(rng)), kind(*factors(rng, 6))
            found.append(similarity(first, second))
        i, j = np.indices((R, 6)) + 1
        error = np.std(found, axis=0, ddof=1) / np.sqrt(draws)
        assert (np.abs(np.mean(found, axis=0) - spectra.expected_similarity(i, j, n)) < 3 * error).all()


def test_the_random_control_is_orthonormal_and_never_twice_the_same(rng: np.random.Generator) -> None:
    one, two = (spectra.random_basis(D, R, rng) for _ in range(2))
    np.testing.assert_allclose(one.T @ one, np.eye(R), atol=1e-12)
    assert similarity(one, two)[-1, -1] < 0.9
    np.testing.assert_allclose(similarity(one, spectra.random_basis(D, D, rng))[:, -1], 1)  # the whole space
    with pytest.raises(ValueError, match=r"^r: got 31; a subspace of R\^30 has from 1 to 30 dimensions"):
        spectra.random_basis(D, D + 1, rng)


@pytest.mark.parametrize(("i", "j"), [(1, 1), (3, 3), (2, 5)])
def test_phi_is_one_minus_the_squared_distance_over_p(i: int, j: int, rng: np.random.Generator) -> None:
    U, V = (spectra.random_basis(D, r, rng) for r in (i, j))
    phi = similarity(U, V)[-1, -1]
    distance, p = spectra.grassmann(U, V), min(i, j)
    assert 1 - distance**2 / p == pytest.approx(phi)
    if p > 1:
        assert (1 - distance**2) / p != pytest.approx(phi), "what the paper prints is another number"


def test_the_distance_of_equal_and_orthogonal_subspaces_is_zero_and_root_p() -> None:
    assert spectra.grassmann(axes(0, 1), axes(1, 0)) == 0
    assert spectra.grassmann(axes(0, 1), axes(2, 3, 4)) == pytest.approx(np.sqrt(2))
    assert spectra.grassmann(axes(1), axes(0, 1)) == 0  # nested


def test_projected_norm_and_amplification_are_the_dense_formulas(rng: np.random.Generator) -> None:
    A, B = factors(rng)
    W, delta = rng.standard_normal((D, K)), 0.5 * B @ A
    svd = thin_svd(A, B, 0.5)
    left, _, right = np.linalg.svd(delta)
    dense = np.linalg.norm(left[:, :R].T @ W @ right[:R].T)
    assert spectra.projected_norm(W, svd.U, svd.V) == pytest.approx(dense)
    assert spectra.amplification(*svd, W) == pytest.approx(np.linalg.norm(delta) / dense)
    first = np.linalg.norm(left[:, 0] @ W @ right[0])
    assert spectra.amplification(*svd, W, rank=1) == pytest.approx(svd.S[0] / first)


def test_w_in_its_own_first_directions_is_its_own_first_singular_values(rng: np.random.Generator) -> None:
    W = rng.standard_normal((D, K))
    U, V = spectra.left_basis(W)[:, :R], spectra.right_basis(W)[:, :R]
    values = np.asarray(np.linalg.svd(W, compute_uv=False), dtype=np.float64)
    assert spectra.projected_norm(W, U, V) == pytest.approx(np.linalg.norm(values[:R]))
    svd = ThinSVD(U, 3 * values[:R], V)  # an update that triples the first R directions of W
    assert spectra.amplification(*svd, W) == pytest.approx(3)


def test_directions_without_an_update_are_not_counted_in_the_amplification() -> None:
    W = np.diag([2.0, 5.0, 7.0, 11.0])
    A, B = np.eye(4)[:2], np.zeros((4, 2))
    B[0, 0] = 6.0  # delta W = 6 e_1 e_1^T, of rank 1 in factors of rank 2
    assert spectra.amplification(*thin_svd(A, B, 1.0), W) == pytest.approx(3)
    assert spectra.amplification(*thin_svd(A, B, 1.0), np.diag([0.0, 5, 7, 11])) == np.inf


@pytest.mark.parametrize(
    ("S", "effective", "stable", "shares"),
    [
        ([3.0], 1, 1, [1]),
        ([2.0, 2.0, 2.0], 3, 3, [1 / 3, 2 / 3, 1]),
        ([5.0, 0.0, 0.0], 1, 1, [1, 1, 1]),
        ([2.0, 1.0, 1.0], 2**1.5, 1.5, [4 / 6, 5 / 6, 1]),  # shares 1/2, 1/4, 1/4: an entropy of 1.5 bits
    ],
)
def test_ranks_and_energy_of_known_spectra(
    S: list[float], effective: float, stable: float, shares: list[float]
) -> None:
    assert spectra.effective_rank(S) == pytest.approx(effective)
    assert spectra.stable_rank(S) == pytest.approx(stable)
    np.testing.assert_allclose(spectra.energy(S), shares)


def test_ranks_and_energy_do_not_depend_on_the_size_of_the_update(rng: np.random.Generator) -> None:
    A, B = factors(rng)
    one, small = thin_svd(A, B, 1.0).S, thin_svd(A, B, 1e-200).S
    assert spectra.effective_rank(one) == pytest.approx(spectra.effective_rank(small))
    assert spectra.stable_rank(one) == pytest.approx(np.linalg.norm(B @ A) ** 2 / np.linalg.norm(B @ A, 2) ** 2)
    assert spectra.stable_rank(small) == pytest.approx(spectra.stable_rank(one))
    np.testing.assert_allclose(spectra.energy(one), spectra.energy(small))


def test_a_planted_direction_is_an_intruder_and_a_grown_one_is_not(rng: np.random.Generator) -> None:
    U, V = (spectra.random_basis(K, K, rng) for _ in range(2))
    W = U * np.linspace(2, 1, K) @ V.T
    assert spectra.intruders(W, np.zeros_like(W), top=10, eps=0.99) == 0
    assert spectra.intruders(W, 50 * np.outer(U[:, 3], V[:, 3]), top=10, eps=0.99) == 0
    between = U.sum(axis=1) / np.sqrt(K)  # a cosine of 1 / sqrt(20) = .22 with every one of W's
    delta = 50 * np.outer(between, V[:, 0])
    assert spectra.intruders(W, delta, top=1, eps=0.5) == 1
    assert spectra.intruders(W, delta, top=1, eps=0.2) == 0
    assert spectra.intruders(W, delta, top=10, eps=0.5) == dense_intruders(W, delta, 10, 0.5)


def dense_intruders(W: Array, delta: Array, top: int, eps: float) -> int:
    """Algorithm 1 of the paper, with two loops; the sign of a singular vector is arbitrary."""
    before, after = np.linalg.svd(W)[0], np.linalg.svd(W + delta)[0]
    count = 0
    for j in range(top):
        count += max(abs(float(before[:, i] @ after[:, j])) for i in range(K)) < eps
    return count


@pytest.mark.parametrize("eps", [0.3, 0.5, 0.7, 0.9])
def test_intruders_are_those_of_the_papers_two_loops(eps: float, rng: np.random.Generator) -> None:
    W, delta = rng.standard_normal((K, K)), 2 * np.outer(rng.standard_normal(K), rng.standard_normal(K))
    left = spectra.left_basis(W)
    expected = dense_intruders(W, delta, 8, eps)
    assert spectra.intruders(W, delta, 8, eps) == expected
    assert spectra.intruders_among(left, spectra.left_basis(W + delta)[:, :8], eps) == expected


def test_single_precision_comes_out_in_double(rng: np.random.Generator) -> None:
    A, B = (np.float32(each) for each in factors(rng))
    U, S, V = thin_svd(A, B, 1.0)
    assert {U.dtype, S.dtype, V.dtype, similarity(np.float32(U), np.float32(U)).dtype} == {np.dtype(np.float64)}
    np.testing.assert_allclose(U * S @ V.T, B.astype(float) @ A.astype(float), atol=1e-12)


def test_what_is_no_basis_no_update_or_not_finite_is_named(rng: np.random.Generator) -> None:
    A, B = factors(rng)
    U = spectra.random_basis(D, R, rng)
    with pytest.raises(ValueError, match=r"^V: its columns are not orthonormal"):
        similarity(U, B)
    with pytest.raises(ValueError, match=r"^U is \(30, 4\) and V is \(20, 4\); their columns must have one length"):
        similarity(U, spectra.right_basis(A))
    with pytest.raises(ValueError, match=r"^A is \(30, 4\) and B is \(20, 4\)|^A is .*share r"):
        thin_svd(B, A.T, 1.0)
    with pytest.raises(ValueError, match=r"^A: 20 of 80 entries are not finite"):
        thin_svd(np.where(np.arange(R)[:, None] == 1, np.nan, A), B, 1.0)
    with pytest.raises(ValueError, match=r"^S: -1 is negative"):
        spectra.energy([1.0, -1.0])
    with pytest.raises(ValueError, match=r"^top: got 21; W has 20 singular vectors"):
        spectra.intruders(np.eye(K), np.eye(K), 21, 0.5)
    with pytest.raises(ValueError, match=r"^tuned: its columns do not have length 1"):
        spectra.best_cosines(U, B)
    with pytest.raises(ValueError, match=r"^A: got shape \(4,\); wanted 2 axes"):
        spectra.right_basis(A[:, 0])


@pytest.mark.slow
def test_a_wide_layer_takes_less_than_a_second_of_one_core() -> None:
    """Everything except the SVDs of W and W + delta W, at 4096 x 4096 and rank 64; measured: about .3 s."""
    program = Path(__file__).resolve().parents[2] / "benchmarks" / "spectra.py"
    command = [sys.executable, str(program), "--width", "4096", "--rank", "64", "--threads", "1"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert json.loads(printed)["cpu"]["all"] < 1
