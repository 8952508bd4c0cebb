"""The likelihood is the training loss per row, independent of the batches."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from loralab.training.evaluate import forward
from loralab.training.likelihood import token_losses
from loralab.training.threads import Workers
from tests.generators import GENERATORS, pairs

ROWS = 7

families = pytest.mark.parametrize("family", GENERATORS)


def losses(family: str, *order: list[int], workers: int = 1) -> tuple[np.ndarray, np.ndarray]:
    calls: list[int] = []
    model = GENERATORS[family]().train()
    with Workers(workers) as those:
        found = token_losses(
            model,
            [np.array(at) for at in order],
            pairs(ROWS, seq2seq=family == "t5"),
            rows=ROWS,
            check=lambda: calls.append(1),
            workers=those,
        )
    assert model.training
    assert len(calls) == len(order)
    return found


@families
def test_the_mean_over_all_tokens_is_the_loss_of_the_whole_batch(family: str) -> None:
    sums, numbers = losses(family, [0, 1, 2, 3, 4, 5, 6])
    batch = pairs(ROWS, seq2seq=family == "t5")(np.arange(ROWS))
    with torch.no_grad():
        logits = forward(GENERATORS[family](), batch)
        expected = cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=-100)
    assert numbers.tolist() == (batch["labels"] != -100).sum(1).tolist()
    assert sums.sum() / numbers.sum() == pytest.approx(expected.item(), rel=1e-6)


@families
def test_a_row_is_told_alike_in_any_company(family: str) -> None:
    alone, numbers = losses(family, *[[i] for i in range(ROWS)])
    together, same_numbers = losses(family, [6, 2, 0], [1, 4], [5, 3], workers=2)
    assert numbers.tolist() == same_numbers.tolist()
    np.testing.assert_allclose(together, alone, rtol=2e-6)
