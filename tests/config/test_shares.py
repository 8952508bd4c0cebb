"""Laws of points given as shares of the steps: none is lost, the last is the end, and a pause meets an evaluation."""

import pytest

from loralab.config.shares import evaluations, is_due, pause_step


def due(every: float, steps: int) -> list[int]:
    return [step for step in range(1, steps + 1) if is_due(step, every, steps)]


@pytest.mark.parametrize(("every", "count"), [(0.1, 10), (0.2, 5), (0.25, 4), (0.5, 2), (0.3, 4), (1 / 7, 7)])
def test_a_share_gives_as_many_evaluations_at_any_number_of_steps(every: float, count: int) -> None:
    for steps in (*range(10, 140), 1000, 12345):
        found = due(every, steps)
        assert len(found) == count and found[-1] == steps, (steps, found)


@pytest.mark.parametrize("every", [0.1, 0.33, 0.99, 0.9999, 1e-3, 1, 2, 7, 64, 1000])
def test_as_many_steps_are_due_as_are_counted(every: float) -> None:
    for steps in (*range(1, 140), 1000):
        assert evaluations(every, steps) == len(due(every, steps)), steps


@pytest.mark.parametrize("steps", [1, 2, 5, 9, 10])
def test_a_share_of_less_than_a_step_is_every_step(steps: int) -> None:
    assert due(0.1, steps) == due(1e-9, steps) == list(range(1, steps + 1))


def test_a_number_of_steps_is_every_multiple_and_the_end() -> None:
    for every in (1, 3, 6, 12, 13, 10**9):
        assert due(every, 12) == sorted({*range(every, 13, every), 12})


@pytest.mark.parametrize("tenth", range(1, 10))
def test_a_pause_at_a_tenth_is_the_step_of_an_evaluation_at_every_tenth(tenth: int) -> None:
    for steps in (*range(1, 400), 1001, 99995):
        at = pause_step(tenth / 10, steps)
        assert 1 <= at <= steps and is_due(at, 0.1, steps), steps


def test_a_pause_beyond_the_end_is_none() -> None:
    assert [pause_step(at, 100) for at in (0.001, 0.3, 0.999, 1, 30, 30.0, 100, 101, None)] == [
        1, 30, 100, 1, 30, 30, 100, 100, 100,
    ]  # fmt: skip
