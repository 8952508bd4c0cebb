"""Arms named by λ: each is compared with λ = 1, and its best rate and the best pair are found."""

from typing import Any

import numpy as np
import pytest

from loralab.studies import ratios
from loralab.studies.minima import quadratic_minimum
from tests.studies.valleys import SEEDS, windows


def test_the_best_pair_is_the_lowest_point_of_a_valley_and_its_curvature_the_valleys() -> None:
    for at in ((-9.0, -6.0), (-8.3, -5.1)):
        found = ratios.pair_optimum(windows(at=at))
        assert [each.at for each in found] == pytest.approx(at, abs=1e-6) and found[0].interior and found[1].interior
        assert [each.low for each in found] == pytest.approx(at, abs=1e-3)
        assert [each.curvature for each in found] == pytest.approx([0.02, 0.016])
    beyond = ratios.pair_optimum(windows(at=(-9.0, -1.0)))  # a ratio of 256, which was not tried
    assert not beyond[0].interior and not beyond[1].interior


def test_the_best_rate_of_a_ratio_is_that_of_the_parabola_about_its_lowest() -> None:
    rows = windows()
    found = ratios.rate_optimum(rows)  # on the diagonal: .02 x + .016 y + .006 (x + y) = 0, with y = x - 3
    assert found.at == pytest.approx(-9 + 3 * 0.022 / 0.048) and found.interior
    noisy = windows(0.01)
    best: Any = noisy[noisy["lora.ratio"] == 4].groupby("optim.lr")["validation/loss"].mean().idxmin()
    near = noisy[(noisy["lora.ratio"] == 4) & noisy["optim.lr"].isin([best / 2, best, 2 * best])]
    assert len(near) == 3 * len(SEEDS)
    by_hand = quadratic_minimum(np.log2(near["optim.lr"]), near["validation/loss"], blocks=near["seed"])
    assert ratios.rate_optimum(noisy, 4) == by_hand
    at_the_end = rows[rows["optim.lr"] >= 2.0**-8]
    assert np.isnan(ratios.rate_optimum(at_the_end).at) and not ratios.rate_optimum(at_the_end).interior
    gone = rows["validation/loss"].mask(rows["seed"] == 0)
    assert np.isnan(ratios.rate_optimum(rows.assign(**{"validation/loss": gone})).at)
