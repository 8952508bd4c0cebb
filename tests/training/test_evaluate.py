"""Prediction: in the split's order, without dropout, and the model is unchanged afterwards."""

import numpy as np
import pytest
import torch

from loralab.training.evaluate import forward, predict
from loralab.training.threads import Workers
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


def test_weights_that_are_computed_are_so_once_for_all_batches() -> None:
    """They are computed again in the next pass, because they may have changed."""
    from tests.methods.test_intrinsic import attached

    model = attached("bert", "fastfood")
    ids = torch.randint(5, 90, (6, 4), generator=torch.Generator().manual_seed(0))
    order = [np.array([0, 1]), np.array([2, 3]), np.array([4, 5])]
    computed: list[int] = []
    model.intrinsic.register_forward_hook(lambda *_: computed.append(1))
    found = []
    with Workers(1) as workers:
        for _ in range(2):
            found.append(
                predict(
                    model, order, lambda at: {"input_ids": ids[at]}, rows=6, check=lambda: None, workers=workers
                )
            )  # fmt: skip
            torch.nn.init.normal_(model.intrinsic.z)
    one = forward(model, {"input_ids": ids[:2]})
    assert not np.array_equal(found[0], found[1])
    per_pass = len(computed) // 3
    assert len(computed) == 3 * per_pass, (
        "as often in two passes over three batches as in two single batches, and one more"
    )
    assert one.requires_grad
