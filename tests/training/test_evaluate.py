"""Laws of prediction: the split's order, dropout off, the model left as it was."""

import numpy as np
import pytest
import torch

from loralab.training.evaluate import forward, predict
from loralab.training.workers import Workers
from tests.families import FAMILIES


@pytest.mark.parametrize("count", [1, 2])
def test_predictions_stand_in_the_order_of_the_split(count: int) -> None:
    model = FAMILIES["bert"]().train()
    ids = torch.randint(5, 90, (7, 6), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    order = [np.array([6, 1, 3]), np.array([0, 5]), np.array([2, 4])]
    calls: list[int] = []
    with Workers(count) as workers:
        logits = predict(
            model,
            order,
            lambda at: {"input_ids": ids[at], "attention_mask": mask[at], "labels": mask[at, 0]},
            rows=7,
            check=lambda: calls.append(1),
            workers=workers,
        )
    assert model.training
    assert len(calls) == 3
    with torch.no_grad():
        expected = forward(model.eval(), {"input_ids": ids, "attention_mask": mask}).numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2])
def test_a_stop_while_predicting_leaves_the_model_training(count: int) -> None:
    model = FAMILIES["bert"]().train()

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Workers(count) as workers:
        predict(model, [np.array([0])], lambda at: {}, rows=1, check=stop, workers=workers)
    assert model.training
