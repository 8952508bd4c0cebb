"""The rate law: what it is equal to at its ends, what cancels, and the rates that were tuned."""

import math
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from loralab.config.schema import RATED
from loralab.theory.rate_law import MINILM, MINILM_WIDTH, ROLES, SCALINGS, c_of, lr_A, over_steps, rates_at

CONF = Path(__file__).parents[2] / "conf" / "model"
INITS: tuple[Literal["A", "B"], ...] = ("A", "B")
C = c_of(["q", "v"], MINILM)


def rate(**changes: Any) -> float:
    usual: dict[str, Any] = {"c": C, "s": 1.0, "rank": 8, "ratio": 4.0, "init": "A", "width": 384, "steps": 100}
    return lr_A(**usual | changes)


@pytest.mark.parametrize("init", INITS)
def test_a_larger_scaling_rank_ratio_or_number_of_steps_lowers_the_rate_and_a_larger_c_raises_it(init: str) -> None:
    for name, values in {
        "s": (0.01, 0.25, 1, 8, 64),
        "rank": (1, 2, 8, 64, 768),
        "ratio": (0.01, 0.25, 1, 4, 64, 1e4),
        "steps": (25, 26, 100, 2499, 2500),
        "c": (0.03, 0.02, 0.01, 0.001),
    }.items():
        rates = [rate(init=init, **{name: value}) for value in values]
        assert rates == sorted(rates, reverse=True) and len(set(rates)) == len(rates), name


@pytest.mark.parametrize("init", INITS)
def test_it_is_the_positive_root(init: str) -> None:
    for ratio in (0.25, 4, 64, 1024):
        for rank in (1, 8, 64):
            x = rate(init=init, ratio=ratio, rank=rank, s=0.5)
            start = 0.3 / 384 if init == "A" else 0.013 / math.sqrt(rank)
            change = ratio * x * (x + start) if init == "A" else x * (ratio * x + start)
            assert 0.5 * rank * change == pytest.approx(C**2, rel=1e-9)


def test_with_init_a_and_a_small_ratio_it_is_the_power_law() -> None:
    for rank, ratio, s in ((1, 1, 1), (8, 4, 1), (8, 1, 4), (16, 2, 0.5)):
        assert rate(rank=rank, ratio=ratio, s=s) == pytest.approx(C / math.sqrt(rank * ratio * s), rel=0.2)


@pytest.mark.parametrize("init", INITS)
def test_both_inits_agree_where_the_random_start_is_small(init: str) -> None:
    assert rate(init=init, ratio=16, rank=1) == pytest.approx(C / 4, rel=0.25)


def test_with_init_a_and_alpha_over_r_the_rank_cancels() -> None:
    rates = {rate(rank=rank, s=SCALINGS["alpha/r"](16, rank)) for rank in (1, 4, 64)}
    assert max(rates) == pytest.approx(min(rates), rel=1e-12)


def test_alpha_is_the_ratio() -> None:
    """(s, lr_A, lr_B) is one run with (1, lr_A, s lr_B) with init A, and with (1, s lr_A, lr_B) with init B."""
    assert rate(s=4, ratio=1) == pytest.approx(rate(s=1, ratio=4), rel=1e-12)
    assert 4 * rate(init="B", s=4, ratio=4) == pytest.approx(rate(init="B", s=1, ratio=1), rel=1e-12)


def test_the_rate_falls_with_the_steps_and_stays_beyond_those_that_were_measured() -> None:
    assert over_steps(1) == over_steps(25) > over_steps(26) > over_steps(100) == 1
    assert over_steps(2499) > over_steps(2500) == over_steps(10**6)
    assert rate(steps=500) == pytest.approx(rate() * over_steps(500))


def test_the_inverse_square_of_c_adds_over_roles_and_a_glob_is_all() -> None:
    assert c_of(["q", "v"], MINILM) ** -2 == pytest.approx(c_of(["q"], MINILM) ** -2 + c_of(["v"], MINILM) ** -2)
    assert c_of(["v", "q", "v"], MINILM) == C
    lowest = c_of(ROLES, MINILM)
    assert c_of(["all"], MINILM) == c_of(["layer.*.query"], MINILM) == c_of(["q", "*.dense"], MINILM) == lowest


def test_another_widths_rates_are_minilms_scaled_and_measured_ones_stay() -> None:
    assert rates_at(MINILM_WIDTH, {}) == MINILM
    wide = rates_at(4 * MINILM_WIDTH, {"v": 0.1})
    assert wide["q"] == MINILM["q"] / 2 and wide["head"] == MINILM["head"] / 4 and wide["v"] == 0.1


def test_measured_rates_are_carried_to_the_copies_as_minilms_are_to_its_width() -> None:
    assert rates_at(4 * MINILM_WIDTH, MINILM, widen=4) == pytest.approx(rates_at(4 * MINILM_WIDTH, {}))


def test_copying_every_unit_divides_lr_a_at_equal_lr_b() -> None:
    """k copies, each block divided by k: (lr_A, lr_B) becomes (lr_A / k, lr_B), hence λ k λ."""
    for init in INITS:
        narrow = rate(init=init, ratio=4)
        wide = rate(init=init, ratio=16, width=4 * 384, c=c_of(["q", "v"], rates_at(4 * 384, {})))
        assert wide == pytest.approx(narrow / 4, rel=1e-9)


def test_the_constants_are_those_of_minilms_file() -> None:
    assert yaml.safe_load((CONF / "minilm.yaml").read_text())["rates"] == MINILM
    assert set(RATED) == {*ROLES, "head"}


# LoRA, Table 9 (RoBERTa-base, q and v, r = alpha = 8, λ = 1): the printed rate, and examples, batch size and epochs.
TABLE_9 = {
    "MNLI": (5e-4, 392_702, 16, 30), "SST-2": (5e-4, 67_349, 16, 60), "MRPC": (4e-4, 3_668, 16, 30),
    "CoLA": (4e-4, 8_551, 32, 80), "QNLI": (4e-4, 104_743, 32, 25), "QQP": (5e-4, 363_846, 16, 25),
    "RTE": (5e-4, 2_490, 32, 80), "STS-B": (4e-4, 5_749, 16, 40),
}  # fmt: skip


@pytest.mark.parametrize("task", TABLE_9)
def test_the_guess_for_another_backbone_is_within_a_factor_of_1_5_of_the_rates_that_lora_prints(task: str) -> None:
    printed, rows, batch, epochs = TABLE_9[task]
    guess = rate(c=c_of(["q", "v"], rates_at(768, {})), width=768, ratio=1, steps=rows * epochs // batch)
    assert 2 / 3 < guess / printed < 1.5
