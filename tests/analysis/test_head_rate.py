"""head_rate: each λ selects both rates, and is compared with λ = 1 at the rates that this has selected."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from loralab.studies import study_module
from tests.analysis.frames import distinct, drawn, made, module

RATE = module("head_rate")
BEST = {1: (3.2e-2, 6.4e-3), 4: (1.6e-2, 3.2e-3), 16: (8e-3, 1.6e-3)}
"""By ratio, the rates of the head and of A with the lowest validation loss."""


def scores(run: dict[str, Any]) -> dict[str, Any]:
    """Valleys around BEST; λ = 4 gains a point, λ = 16 loses one."""
    head, lr = BEST[run["lora.ratio"]]
    loss = 0.3 + 0.05 * np.log2(run["optim.head_lr"] / head) ** 2 + 0.1 * np.log2(run["optim.lr"] / lr) ** 2
    gain = {1: 0.0, 4: 0.01, 16: -0.01}[run["lora.ratio"]]
    accuracy = 0.8 + 1e-3 * (run["seed"] % 3) + gain
    return distinct(run) | {"validation/loss": loss, "test/accuracy": accuracy, "correct": ""}


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return made("head_rate", scores).sample(frac=1, random_state=0)


def test_each_ratio_is_compared_at_the_rates_that_it_selected(frame: pd.DataFrame) -> None:
    table = RATE.summary(frame).set_index("ratio")
    np.testing.assert_allclose(table.loc[[*BEST], ["head", "lr_A"]].astype(float), [*BEST.values()])
    assert table["difference, points"].tolist() == ["+0.00", "+1.00", "-1.00"] and table["interior"].all()


def test_the_loss_of_a_heads_rate_is_that_at_its_best_lr_a(frame: pd.DataFrame) -> None:
    for ratio, (head, _) in BEST.items():
        losses = RATE.tuned(frame[frame["lora.ratio"] == ratio])
        np.testing.assert_allclose(losses, 0.3 + 0.05 * np.log2(losses.index.to_numpy() / head) ** 2)
        assert len(losses) == 5


def test_the_other_heads_are_beside_it_where_they_are_committed(
    frame: pd.DataFrame, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = made("ratio_head_seeds", distinct, "seed=400,401")
    monkeypatch.setattr(study_module, "ANALYSIS", tmp_path)
    assert [*RATE.heads(frame)] == ["head tuned"]
    (tmp_path / "results").mkdir()
    others.to_csv(tmp_path / "results" / "ratio_head_seeds.csv")
    assert [*RATE.heads(frame)] == ["head tuned", "head at 4e-3", "head at lr_A"]
    monkeypatch.undo()
    with drawn("head_rate", frame) as figure:
        assert {line.get_label() for line in figure.axes[2].lines} == {"λ = 1", "λ = 4", "λ = 16"}


def test_the_question_says_that_the_head_is_tuned(frame: pd.DataFrame) -> None:
    (question,) = RATE.questions(frame)
    assert "the head's rate is tuned" in question.text and "20 fresh seeds" in RATE.caption(frame)
