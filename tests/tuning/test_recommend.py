"""Which run is recommended, from final losses with noise, and how wide the plateau is."""

import pytest

from loralab.tuning.parabola import Parabola
from loralab.tuning.recommend import NOISE, between_seeds, plateau, preferred


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


def test_the_plateau_ends_where_the_final_loss_has_risen_by_the_noise() -> None:
    low, high = plateau(Parabola(1.0, 0.02, 0.8), final=0.4, noise=0.01)
    assert low == pytest.approx(0.0, abs=1e-9)
    assert high == pytest.approx(2.0)
