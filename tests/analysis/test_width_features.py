"""width_features: built-in powers of n are found at each step; the calculus is that of Theorem 1."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from loralab.studies.tables import Tables
from loralab.studies.verdicts import CONTRADICTED, HELD
from tests.analysis.frames import claims, drawn, made, module, unlike, verdicts

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

FEATURES = module("width_features")
WIDTHS, SEEDS, STEPS = (64, 128, 256, 512), range(5), (1, 5, 10, 15, 20)
RULES, QUANTITIES = ("constant", "root", "theory"), ("delta1", "delta2", "zA")
Law = Callable[[int, float, float, int], tuple[float, float, float]]


def wide(n: int, lr_A: float, lr_B: float, step: int) -> tuple[float, float, float]:
    """delta1, delta2 and Z_A if Z_A's start is negligible at once: the calculus's powers, from step 3 on."""
    return lr_B * step * n * lr_A, lr_B * n * lr_A * step, n * lr_A * step


def still(n: int, lr_A: float, lr_B: float, step: int) -> tuple[float, float, float]:
    """Features never move from their start, and delta1 falls with the width."""
    return lr_B / n, lr_B, 1.0


def study(law: Law, noise: float = 0.1) -> pd.DataFrame:
    def score(run: dict[str, Any]) -> list[dict[str, Any]]:
        n, rows = int(run["model"].partition("_")[2]), []
        for step in STEPS:
            found = law(n, run["optim.lr"], run["optim.lr"] * run["lora.ratio"], step)
            noisy = [value * (1 + noise * (unlike(run | {"at": step}, str(i)) - 0.5)) for i, value in enumerate(found)]
            rows.append({"width": n, "step": step, **dict(zip(QUANTITIES, noisy, strict=True)), "delta3": 0.0})
            if step == 1:
                rows[-1]["delta1"] = 0.0
        return rows

    return made("width_features", score).sample(frac=1, random_state=0)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return study(wide)


@pytest.fixture(scope="module")
def figure(frame: pd.DataFrame) -> Iterator["Figure"]:
    with drawn("width_features", frame) as found:
        yield found


def by_hand(frame: pd.DataFrame, rule: str, quantity: str, step: int) -> Any:
    """(seed, width): the values at a rule's rates."""
    rules: dict[str, dict[int, tuple[float, float]]] = {
        "constant": dict.fromkeys(WIDTHS, (3.2e-3, 1)),
        "root": {n: (3.2e-3 * (128 / n) ** 0.5, 1) for n in WIDTHS},
        "theory": {n: (0.1024 / n, n / 8) for n in WIDTHS},
    }
    rates, found = rules[rule], []
    for seed in SEEDS:
        for n in WIDTHS:
            lr, ratio = rates[n]
            own = frame[(frame["seed"] == seed) & (frame["width"] == n) & (frame["step"] == step)]
            own = own[(abs(own["optim.lr"] / lr - 1) < 1e-3) & (own["lora.ratio"] == ratio)]
            assert len(own) == 1
            found.append(own[quantity].iloc[0])
    return np.array(found).reshape(len(SEEDS), len(WIDTHS))


def test_each_rule_has_a_run_for_each_width_and_seed_and_one_product_of_rates_at_128(frame: pd.DataFrame) -> None:
    assert len(frame) == 11 * len(SEEDS) * len(STEPS)  # at n = 128 two rules share a run
    for rule in RULES:
        table = FEATURES.table(frame, rule, "zA", 10)
        assert tuple(table.columns) == WIDTHS
        np.testing.assert_array_equal(table.to_numpy(), by_hand(frame, rule, "zA", 10))
        own = FEATURES.of_rule(frame[frame["width"] == 128], rule)
        product = own["optim.lr"] ** 2 * own["lora.ratio"]
        assert product.to_numpy() == pytest.approx(3.2e-3**2)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("quantity", QUANTITIES)
def test_a_power_is_the_mean_of_the_seeds_slopes_with_students_interval(
    frame: pd.DataFrame, rule: str, quantity: str
) -> None:
    values = np.log2(by_hand(frame, rule, quantity, 15))
    slopes = [np.polyfit(np.log2(WIDTHS), row, 1)[0] for row in values]
    found = FEATURES.power(frame, rule, quantity, 15)
    interval = stats.ttest_1samp(slopes, 0).confidence_interval()
    assert (found.estimate, found.low, found.high) == pytest.approx((np.mean(slopes), interval.low, interval.high))
    assert found.estimate == pytest.approx(FEATURES.expected(rule, quantity, 15), abs=0.05)


def test_the_calculus_is_that_of_theorem_1_and_its_first_step_is_another() -> None:
    later = {rule: [FEATURES.expected(rule, quantity, 10) for quantity in QUANTITIES] for rule in RULES}
    assert later == {"constant": [1, 1, 1], "root": [0, 0, 0.5], "theory": [0, 0, 0]}
    first = {rule: [FEATURES.expected(rule, quantity, 1) for quantity in QUANTITIES] for rule in RULES}
    assert first == {"constant": [-np.inf, 0, 0], "root": [-np.inf, -0.5, 0], "theory": [-np.inf, 0, 0]}


def test_what_the_calculus_says_is_held_and_what_it_does_not_say_is_not(frame: pd.DataFrame) -> None:
    found = claims("width_features", frame)
    assert verdicts("width_features", frame) == [HELD] * 6
    assert [claim.number for claim in found] == [0, 0, 0, 1, 1, 0.5]
    assert [claim.found.estimate for claim in found] == pytest.approx([0, 0, 0, 1, 1, 0.5], abs=0.1)
    fallen = verdicts("width_features", study(still))
    assert fallen == [CONTRADICTED, HELD, HELD, CONTRADICTED, CONTRADICTED, CONTRADICTED]


def test_the_values_are_drawn_and_their_powers_are_in_a_table_beside_the_theorys(
    frame: pd.DataFrame, figure: "Figure"
) -> None:
    (table,) = figure.axes[-1].tables
    for column, quantity in enumerate(QUANTITIES):
        lines: Any = [line for line in figure.axes[column].lines if line.get_marker() == "None"]
        for row, (rule, line) in enumerate(zip(RULES, lines, strict=True)):
            means = np.exp(np.log(by_hand(frame, rule, quantity, 10)).mean(axis=0))
            np.testing.assert_allclose(line.get_data(), [WIDTHS, means])
            fit = FEATURES.power(frame, rule, quantity, 10)
            cells = [table[row + 1, 2 * column + at].get_text().get_text() for at in (0, 1)]
            expected = f"{FEATURES.expected(rule, quantity, 10):g}"
            assert cells == [f"{fit.estimate:.2f} [{fit.low:.2f}, {fit.high:.2f}]", expected]


def test_a_run_that_diverged_has_no_power_and_the_rest_stands(frame: pd.DataFrame) -> None:
    gone = (frame["width"] == 512) & (frame["lora.ratio"] == 1) & (frame["seed"] == 3)
    gone &= np.isclose(frame["optim.lr"], 3.2e-3) & (frame["step"] >= 10)
    spoilt = frame[~gone].assign(status=frame["status"])
    assert np.isnan(FEATURES.power(spoilt, "constant", "delta1", 10).p) and FEATURES.power(
        spoilt, "constant", "delta1", 5
    ) == FEATURES.power(frame, "constant", "delta1", 5)
    untested = [bool(np.isnan(claim.found.low)) for claim in claims("width_features", spoilt)]
    assert untested == [False] * 3 + [True] * 2 + [False]
    with drawn("width_features", spoilt):
        pass


def test_a_row_is_a_probed_step_and_the_median_over_the_maps_of_a_real_run(tmp_path: "Path") -> None:
    from loralab.runs.run import run
    from loralab.sweeps.cell import Cell
    from loralab.sweeps.collect import curves
    from tests.small_runs import config

    name = run(config(tmp_path, "probe.every=5", "method=lora"))["name"]
    logged = curves(tmp_path, [Cell((), {}, "grid", name)])
    runs = pd.DataFrame({"run": [name], "status": ["success"]}).reindex(columns=["run", "step", *FEATURES.KEPT[:-1]])
    runs["step"], runs["status"] = 12, "success"
    runs = runs.loc[:, ~runs.columns.duplicated()].drop(columns=["width", "delta1", "delta2", "delta3", "zA"])
    found = FEATURES.reduce(Tables(runs, logged, tmp_path))
    assert list(found) == FEATURES.KEPT and found["step"].tolist() == [1, 5, 10] and set(found["width"]) == {64}
    probed = logged[(logged["split"] == "probe") & (logged["step"] == 10)]
    for quantity in ("delta1", "delta2", "delta3", "zA"):
        values = probed.loc[probed["name"].str.endswith(f"/{quantity}"), "value"]
        assert len(values) == 4  # q and v of two layers
        assert found[quantity].iloc[2] == pytest.approx(np.median(values)) and np.median(values) > 0
    assert found["delta1"].iloc[0] == 0
