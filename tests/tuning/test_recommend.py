"""Which run is recommended, from final losses with noise, and how wide the plateau is."""

import pytest

from loralab.tuning.parabola import Parabola
from loralab.tuning.recommend import NOISE, between_seeds, preferred, settled


def test_a_later_candidate_must_win_by_more_than_the_error() -> None:
    assert preferred({"near": [0.40, 0.40], "other": [0.395, 0.395]}, noise=0.013) == "near"
    assert preferred({"near": [0.40, 0.40], "other": [0.38, 0.38]}, noise=0.013) == "other"
    assert preferred({"near": [0.40], "other": [0.385]}, noise=0.013) == "near"


def test_the_noise_is_the_usual_one_until_seeds_tell_more() -> None:
    alone, repeated = between_seeds([[0.4], [0.5]])
    assert alone == pytest.approx(NOISE)
    assert not repeated
    few, repeated = between_seeds([[0.40, 0.46]])
    many, _ = between_seeds([[0.40, 0.46]] * 50)
    assert repeated
    assert NOISE < few < many == pytest.approx(0.06 / 2**0.5, rel=0.05)


@pytest.mark.parametrize("vertex", [-2.5, -1.0, 0.4])
def test_without_noise_two_final_losses_tell_the_vertex(vertex: float) -> None:
    finals = [(x, 0.37 + 0.01 * (x - vertex) ** 2) for x in (0.0, -2.0)]
    found = settled(Parabola(0.0, 0.01, 0.4), finals, noise=1e-9)
    assert tuple(found) == pytest.approx((vertex, 0.01, 0.37))


def test_one_final_loss_or_noisy_ones_leave_the_vertex_where_it_was() -> None:
    early = Parabola(0.4, 0.01, 0.37)
    assert settled(early, [(0.0, 0.38)], noise=0.013).at == pytest.approx(0.4)
    assert settled(early, [(0.0, 0.38), (-2.0, 0.37)], noise=10.0).at == pytest.approx(0.4, abs=1e-3)


def test_more_seeds_move_the_vertex_further() -> None:
    early, finals = Parabola(0.0, 0.01, 0.37), [(0.0, 0.38), (-2.0, 0.37)]
    once, thrice = (settled(early, finals * times, noise=0.013).at for times in (1, 3))
    assert -1.5 < thrice < once < 0
