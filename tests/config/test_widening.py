"""Widening and the other settings: what does not go together is one line."""

from pathlib import Path

import pytest

from loralab.config.widening import check_widening
from loralab.errors import UserError
from tests.small_runs import config


@pytest.mark.parametrize("method", ["lora", "head", "full", "bitfit"])
def test_methods_that_start_as_the_backbone_or_as_copies_take_exact_ones(method: str) -> None:
    check_widening(2, 0.0, method)


@pytest.mark.parametrize("method", ["houlsby", "pfeiffer", "prefix", "prompt", "p_tuning", "intrinsic", "lora_prefix"])
def test_a_method_that_draws_its_start_at_the_full_width_needs_noise(method: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"^model.widen: got 2 without noise, [^\n]*method={method} [^\n]*lora, head"):
        config(tmp_path, f"method={method}", "model.widen=2")
    for k, noise in ((2, 0.5), (1, 0.0)):
        check_widening(k, noise, method)


def test_noise_on_one_copy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^model.widen_noise: got 0.5 with model.widen=1; [^\n]*set model.widen=2"):
        config(tmp_path, "model.widen_noise=0.5")


@pytest.mark.parametrize("value", ["model.widen=0", "model.widen=-2", "model.widen_noise=-1", "model.widen_noise=nan"])
def test_a_value_out_of_range_is_one_line(value: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"^{value.split('=')[0]}: got [^\n]*$"):
        config(tmp_path, value)
