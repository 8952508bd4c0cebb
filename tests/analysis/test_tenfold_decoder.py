"""tenfold_decoder: built-in rates give their ratio, with the interval of the noise between the seeds."""

import functools
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest

from tests.analysis.frames import claims, distinct, drawn, made, module, verdicts

TENFOLD = module("tenfold_decoder")
FULL = 1.4e-4


@functools.cache
def built(times: float = 10.0, noise: float = 0.001) -> pd.DataFrame:
    """Parabolas in log lr around FULL, `times` that for all maps, and 40 times that for q and v; noise: of one loss."""
    rates = {TENFOLD.FULL: FULL, TENFOLD.THEIRS: times * FULL, TENFOLD.OURS: 40 * FULL}

    def score(run: dict[str, Any]) -> dict[str, Any]:
        lora = TENFOLD.THEIRS if run["lora.targets"] == "all" else TENFOLD.OURS
        arm = TENFOLD.FULL if run["method"] == "full" else lora
        shaken = noise * (-1) ** (run["seed"] + round(np.log2(run["optim.lr"] / rates[arm]))) if run["seed"] else 0.0
        return distinct(run) | {"validation/loss": 1 + np.log2(run["optim.lr"] / rates[arm]) ** 2 / 10 + shaken}

    return made("tenfold_decoder", score)


def test_the_ratio_of_the_tuned_rates_is_what_was_built_in() -> None:
    for arm, wanted in ((TENFOLD.THEIRS, 10), (TENFOLD.OURS, 40)):
        found = TENFOLD.times(built(), arm)
        assert found.estimate == pytest.approx(wanted, rel=1e-6)
        assert found.low < wanted < found.high and found.low * found.high == pytest.approx(wanted**2)
    summary = TENFOLD.summary(built())
    assert len(summary) == 3 and summary["interior"].all()
    assert summary.set_index("arm").loc[TENFOLD.THEIRS, "times that of full"].startswith("10.0 [")


def test_noisier_seeds_widen_the_interval() -> None:
    width = {noise: TENFOLD.times(built(10.0, noise), TENFOLD.THEIRS) for noise in (0.001, 0.002)}
    lengths = [np.log(found.high / found.low) for found in width.values()]
    assert lengths[1] == pytest.approx(2 * lengths[0], rel=0.01)


def test_the_claim_is_the_papers_number_within_a_factor_of_2() -> None:
    for times, wanted in ((10.0, "held"), (2.8, "contradicted in size")):
        (claim,) = claims("tenfold_decoder", built(times))
        assert verdicts("tenfold_decoder", built(times)) == [wanted]
        assert claim.found.estimate == pytest.approx(times, rel=0.01) and claim.number == 10


def test_a_best_rate_at_the_end_of_its_window_gives_no_ratio() -> None:
    found = TENFOLD.times(built(1.0), TENFOLD.THEIRS)
    assert np.isnan(found.estimate) and verdicts("tenfold_decoder", built(1.0)) == ["not identified"]


def test_the_figure_shows_the_losses_and_the_ratios() -> None:
    frame = built()
    with drawn("tenfold_decoder", frame) as figure:
        left, right = cast(Any, figure.axes)
        for arm, colour in TENFOLD.COLOURS.items():
            own = TENFOLD.named(frame)[TENFOLD.named(frame)["arm"] == arm].groupby("optim.lr")["validation/loss"].mean()
            line, mark = (each for each in left.lines if each.get_color() == colour)
            np.testing.assert_allclose(line.get_data(), [own.index, own])
            assert float(np.ravel(mark.get_xdata())[0]) == pytest.approx(TENFOLD.tuned(frame).loc[arm, "tuned"])
        shown = [float(bars.lines[0].get_xdata()[0]) for bars in right.containers]
        assert shown == pytest.approx([10, 40])
