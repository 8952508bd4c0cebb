"""Timing: each action runs once per repeat, in changing order, in the thread's CPU time; a first round warms up."""

import threading
import time

import pytest
import torch

from loralab.studies.timing import backbone, in_turn, one_thread


def spin(seconds: float) -> None:
    """Keeps this thread's core busy for this time."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_every_action_is_taken_once_a_repeat_in_changing_orders() -> None:
    taken: list[tuple[str, int]] = []
    actions = {name: (lambda repeat, name=name: taken.append((name, repeat))) for name in "abcd"}
    rows = [(key, row["repeat"]) for key, row in in_turn(actions, repeats=20)]
    assert taken[4:] == rows and {repeat for _, repeat in taken[:4]} == {-1}
    assert sorted(rows) == [(name, repeat) for name in "abcd" for repeat in range(20)]
    orders = {tuple(name for name, _ in rows[at : at + 4]) for at in range(0, 80, 4)}
    assert len(orders) > 10 and {order[0] for order in orders} == {*"abcd"}


def test_a_time_is_the_lowest_of_its_passes() -> None:
    spans = iter([0.0, 0.0, 0.03, 0.01, 0.02, 0.01])
    rows = [row for _, row in in_turn({"a": lambda _: spin(next(spans))}, repeats=2, passes=2)]
    assert [row["cpu"] for row in rows] == pytest.approx([0.01, 0.01], abs=0.005)


def test_what_other_threads_and_sleep_take_is_not_the_actions_time() -> None:
    other = threading.Thread(target=spin, args=(0.2,))
    other.start()
    ((_, row),) = in_turn({"sleeps": lambda repeat: time.sleep(0.1 * (repeat + 1))}, repeats=1)
    other.join()
    assert row["cpu"] < 0.05 < 0.1 <= row["wall"]


def test_torch_computes_in_the_calling_thread_and_has_its_threads_back() -> None:
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), one_thread():
        assert torch.get_num_threads() == 1
        raise ZeroDivisionError
    assert torch.get_num_threads() == before


def test_the_backbone_is_frozen_but_for_its_head() -> None:
    found = backbone("tiny")
    trainable = {name for name, p in found.model.named_parameters() if p.requires_grad}
    assert trainable and all(name.startswith(found.head) for name in trainable)
    assert {p.dtype for p in found.model.parameters()} == {torch.float32}
