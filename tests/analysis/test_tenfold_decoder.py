"""tenfold_decoder: built-in rates give their ratio, with the interval of the noise that the fresh seeds have."""

import functools
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest

from loralab.studies.claims import judge
from tests.analysis.frames import distinct, drawn, made, module

TENFOLD = module("tenfold_decoder")
FULL = 1.4e-4


@functools.cache
def built(times: float = 10.0) -> pd.DataFrame:
    """Losses are parabolas in log lr around FULL, `times` that for all maps, and 40 times that for q and v."""
    rates = {TENFOLD.FULL: FULL, TENFOLD.THEIRS: times * FULL, TENFOLD.OURS: 40 * FULL}

    def score(run: dict[str, Any]) -> dict[str, Any]:
        lora = TENFOLD.THEIRS if run["lora.targets"] == "all" else TENFOLD.OURS
        arm = TENFOLD.FULL if run["method"] == "full" else lora
        return distinct(run) | {"validation/loss": 1 + np.log2(run["optim.lr"] / rates[arm]) ** 2 / 10}

    return made("tenfold_decoder", score)


@pytest.fixture(autouse=True)
def _no_committed_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TENFOLD, "FRESH", tmp_path / "ratio_decoder.csv")
    TENFOLD.noise.cache_clear()


def test_the_ratio_of_the_tuned_rates_is_what_was_built_in() -> None:
    for arm, wanted in ((TENFOLD.THEIRS, 10), (TENFOLD.OURS, 40)):
        found = TENFOLD.times(built(), arm)
        assert found.estimate == pytest.approx(wanted, rel=1e-6)
        assert found.low < wanted < found.high and found.low * found.high == pytest.approx(wanted**2)
    summary = TENFOLD.summary(built())
    assert len(summary) == 3 and summary["interior"].all()
    assert summary.set_index("arm").loc[TENFOLD.THEIRS, "times that of full"].startswith("10.0 [")


def test_noisier_fresh_seeds_widen_the_interval(tmp_path: Path) -> None:
    before = TENFOLD.times(built(), TENFOLD.THEIRS)
    rows = [
        {"stage": "confirm", "seed": seed, "lora.ratio": ratio, "validation/loss": 1 + 0.01 * (-1) ** (seed + at)}
        for seed in range(4)
        for at, ratio in enumerate((1, 4))
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "ratio_decoder.csv", index=False)
    TENFOLD.noise.cache_clear()
    assert TENFOLD.noise() == pytest.approx(0.01 * np.sqrt(8 / 3))
    after = TENFOLD.times(built(), TENFOLD.THEIRS)
    scale = np.log(after.high / after.low) / np.log(before.high / before.low)
    assert scale == pytest.approx(TENFOLD.noise() / 0.012, rel=1e-6)


def test_the_claims_are_about_half_the_papers_number() -> None:
    for times, wanted in ((10.0, "held"), (2.8, "did not hold")):
        judged = judge(TENFOLD.claims(built(times)))
        assert [row.verdict for row in judged] == [wanted, "held"]
        assert judged[0].claim.found.estimate == pytest.approx(times, rel=1e-6) and judged[0].claim.threshold == 5


def test_a_best_rate_at_the_end_of_its_window_gives_no_ratio() -> None:
    found = TENFOLD.times(built(1.0), TENFOLD.THEIRS)
    assert np.isnan(found.estimate) and judge(TENFOLD.claims(built(1.0)))[0].verdict == "cannot tell at this scale"


def test_the_figure_shows_the_losses_and_the_ratios() -> None:
    frame = built()
    with drawn("tenfold_decoder", frame) as figure:
        left, right = cast(Any, figure.axes)
        for arm, colour in TENFOLD.COLOURS.items():
            own = TENFOLD.named(frame)[TENFOLD.named(frame)["arm"] == arm].sort_values("optim.lr")
            line, mark = (each for each in left.lines if each.get_color() == colour)
            np.testing.assert_allclose(line.get_data(), [own["optim.lr"], own["validation/loss"]])
            assert float(np.ravel(mark.get_xdata())[0]) == pytest.approx(TENFOLD.tuned(frame).loc[arm, "tuned"])
        shown = [float(bars.lines[0].get_xdata()[0]) for bars in right.containers]
        assert shown == pytest.approx([10, 40])
