"""Workers: items in order, one thread each, exceptions are raised, and torch's number of threads is restored."""

import threading
import time

import pytest
import torch

from loralab.training.threads import Workers


@pytest.mark.parametrize("count", [1, 2, 3])
def test_results_stand_in_the_order_of_the_items(count: int) -> None:
    def slow_first(i: int) -> int:
        time.sleep(0.02 if i == 0 else 0)
        return i * i

    with Workers(count) as workers:
        assert list(workers.map(slow_first, range(6))) == [0, 1, 4, 9, 16, 25]


def test_one_worker_is_the_calling_thread() -> None:
    with Workers(1) as workers:
        assert list(workers.map(lambda _: threading.current_thread(), [0])) == [threading.current_thread()]


def test_every_worker_computes_alone_and_torch_is_left_as_it_was() -> None:
    before = torch.get_num_threads()
    with Workers(2) as workers:
        assert list(workers.map(lambda _: torch.get_num_threads(), range(4))) == [1] * 4
    assert torch.get_num_threads() == before
    assert not [t for t in threading.enumerate() if t.name.startswith("worker")]


def test_an_exception_is_raised_and_the_rest_dropped() -> None:
    begun = []

    def fail(i: int) -> int:
        begun.append(i)
        time.sleep(0.01)
        raise KeyError(i)

    with pytest.raises(KeyError), Workers(2) as workers:
        list(workers.map(fail, range(50)))
    assert len(begun) < 50
