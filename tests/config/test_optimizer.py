"""optim.name, and the settings that only one optimizer reads."""

from pathlib import Path

import pytest

from loralab.config.optimizer import ADAMS, OPTIMIZERS, check_optimizer
from loralab.errors import UserError
from tests.small_runs import config


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_rate_and_the_defaults_go_with_each(name: str, tmp_path: Path) -> None:
    assert config(tmp_path, f"optim.name={name}", "optim.lr=0.01").optim.name == name
    optim = config(tmp_path).optim
    assert {"betas[0]": optim.betas[0], "betas[1]": optim.betas[1], "eps": optim.eps} == ADAMS


@pytest.mark.parametrize("name", ["sgd", "lion", "adafactor"])
def test_the_law_of_another_optimizer_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=rf"^optim\.lr: got auto with optim\.name={name}, .* AdamW's; give a rate"):
        check_optimizer(name, lr="auto", betas=[0.9, 0.999], eps=1e-8)


def test_a_setting_that_is_not_read_is_refused() -> None:
    check_optimizer("adamw", lr="auto", betas=[0.8, 0.9], eps=1e-6)
    check_optimizer("sgd", lr=0.1, betas=[0.5, 0.999], eps=1e-8)
    with pytest.raises(UserError, match=r"^optim\.eps: got 1e-06 with optim\.name=sgd, which does not read it; leave"):
        check_optimizer("sgd", lr=0.1, betas=[0.9, 0.999], eps=1e-6)
    with pytest.raises(UserError, match=r"^optim\.betas\[0\]: got 0\.5 with optim\.name=adafactor, which does not r"):
        check_optimizer("adafactor", lr=0.1, betas=[0.5, 0.999], eps=1e-8)
