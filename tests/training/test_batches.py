"""The batch order."""

import numpy as np
import pytest

from loralab.training.batches import Order, by_length

LENGTHS = np.random.default_rng(0).integers(3, 60, size=1_003)


@pytest.mark.parametrize("bucketing", [True, False])
def test_every_epoch_holds_every_example_once(bucketing: bool) -> None:
    order = Order(LENGTHS, batch_size=16, seed=0, bucketing=bucketing)
    for epoch in range(3):
        batches = [order.batch(epoch * order.per_epoch + i) for i in range(order.per_epoch)]
        assert sorted(np.concatenate(batches)) == list(range(len(LENGTHS)))
        assert sorted(len(b) for b in batches)[0] == len(LENGTHS) % 16


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    forward, again = (Order(LENGTHS, batch_size=16, seed=3, bucketing=True) for _ in range(2))
    steps = [0, 5, 70, 130]
    expected = {step: forward.batch(step) for step in steps}
    for step in reversed(steps):
        assert (again.batch(step) == expected[step]).all()
    other = Order(LENGTHS, batch_size=16, seed=4, bucketing=True)
    assert any((other.batch(step) != expected[step]).any() for step in steps if len(other.batch(step)) == 16)


def test_epochs_differ() -> None:
    order = Order(LENGTHS, batch_size=16, seed=0, bucketing=False)
    assert (order.batch(0) != order.batch(order.per_epoch)).any()


def test_buckets_leave_little_padding() -> None:
    def padded(bucketing: bool) -> int:
        order = Order(LENGTHS, batch_size=16, seed=0, bucketing=bucketing)
        batches = [LENGTHS[order.batch(i)] for i in range(order.per_epoch)]
        return sum(int(b.max()) * len(b) - int(b.sum()) for b in batches)

    assert padded(True) < 0.15 * padded(False)


def test_the_order_of_a_seed_never_changes() -> None:
    # Golden: a change here changes every run; bump NUMERICS_VERSION.
    assert Order(np.arange(1, 11), batch_size=4, seed=0, bucketing=False).batch(0).tolist() == [3, 2, 1, 8]


def test_evaluation_sees_every_example_once_longest_first() -> None:
    batches = by_length(LENGTHS, batch_size=64)
    assert sorted(np.concatenate(batches)) == list(range(len(LENGTHS)))
    assert [LENGTHS[b].max() for b in batches] == sorted((LENGTHS[b].max() for b in batches), reverse=True)
