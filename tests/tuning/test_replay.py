"""A search's requests: what is met from what was seen, what it costs, and what the budget refuses."""

import pytest

from loralab.tuning.replay import Replay, Unmet
from loralab.tuning.trial import Observed, Seen, Settings, Trial, settings_of

A, B, C = (settings_of({"optim.lr": rate}) for rate in (1e-3, 2e-3, 4e-3))


def reached(share: float, run: Settings = A, status: str = "paused") -> Observed:
    return Observed(run, status, ((share, 0.5),) if share else ())  # type: ignore[arg-type]


def test_only_what_is_missing_is_asked_for() -> None:
    replay = Replay({A: reached(0.5)}, budget=5)
    with pytest.raises(Unmet) as unmet:
        replay.train([A, B, B], 0.5)
    assert unmet.value.trials == [Trial(B, 0.5)]


def test_a_run_costs_what_is_asked_of_it_once_also_if_it_was_there_before() -> None:
    replay = Replay({A: reached(1.0, status="success")}, budget=5)
    for share in (0.2, 0.5, 0.2):
        assert replay.train([A], share) == [A]
    assert replay.cost == pytest.approx(0.5)


@pytest.mark.parametrize("status", ["diverged", "failed"])
def test_a_run_that_cannot_go_on_costs_what_it_was_trained_and_is_not_asked_for_again(status: str) -> None:
    replay = Replay({A: reached(0.1, status=status)}, budget=5)
    assert replay.train([A], 1.0) == [A]
    assert replay.cost == pytest.approx(0.1)
    assert replay.loss(A, 0.1) == float("inf")


def test_the_budget_keeps_what_one_run_needs_to_its_end() -> None:
    seen: Seen = {run: reached(0.5, run) for run in (A, B, C)}
    assert Replay(seen, budget=1).train([A, B, C], 0.5) == [A]
    assert Replay(seen, budget=1.5).train([A, B, C], 0.5) == [A, B]
    replay = Replay(seen, budget=2.0)
    assert replay.train([A, B, C], 0.5) == [A, B, C]
    with pytest.raises(Unmet) as unmet:
        replay.train([B, C], 1.0)
    assert unmet.value.trials == [Trial(B, 1.0)]


def test_a_loss_beyond_what_was_trained_is_not_known() -> None:
    replay = Replay({A: reached(0.5)}, budget=1)
    assert (replay.loss(A, 0.5), replay.loss(A, 1.0), replay.loss(B, 0.5)) == (0.5, float("inf"), float("inf"))
