"""Tests of trackers: each number is on a run's page once, also after a kill; their errors end no run; none is none."""

import contextlib
from pathlib import Path
from typing import Any

import pytest

from loralab.store.mirror import Ending, Place
from loralab.store.trackers import Mirrored, NoTracker, open_tracker
from tests.pages import METRICS, line, numbers, tracker


class Kept:
    """A mirror whose page outlives the process; `broken`: the method that fails."""

    def __init__(self, broken: str = "", *, asked: bool = True) -> None:
        self.broken, self.asked = broken, asked
        self.page: list[tuple[int, str, float]] = []
        self.times: list[float] = []
        self.endings: list[Ending] = []
        self.resumed: list[bool] = []

    def start(self, *, resumed: bool) -> Place:
        self.fail("start")
        self.resumed.append(resumed)
        return Place("here", "there")

    def there(self) -> set[tuple[str, int]] | None:
        return {(name, step) for step, name, _ in self.page} if self.asked else None

    def log(self, step: int, values: dict[str, float], at: float) -> None:
        self.fail("log")
        self.page += [(step, name, value) for name, value in values.items()]
        self.times.append(at)

    def finish(self, ending: Ending) -> None:
        self.fail("finish")
        self.endings.append(ending)

    def fail(self, method: str) -> None:
        if method == self.broken:
            raise RuntimeError("no network")


def page(*lines: dict[str, Any]) -> list[tuple[int, str, float]]:
    """What is on a page of these lines of training loss."""
    return [(each["step"], *number) for each in lines for number in numbers(each["step"]).items()]


def killed(mirror: Kept, *lines: dict[str, Any]) -> None:
    """Logs the lines, and never ends."""
    opened = Mirrored("kept", mirror)
    opened.begin([])
    for each in lines:
        opened.log(each)


def test_a_resumed_run_has_each_number_once_and_what_the_kill_took_from_its_page() -> None:
    mirror = Kept()
    killed(mirror, line(1), line(3), line(4), line(5))  # line 2 was not on its page yet
    with Mirrored("kept", mirror) as resumed:  # from the checkpoint at step 3
        resumed.begin([line(1), line(2), line(3)])
        for step in (4, 5, 6):
            resumed.log(line(step))
    assert sorted(mirror.page) == sorted(page(*map(line, (1, 2, 3, 4, 5, 6))))
    assert mirror.resumed == [False, True]


def test_a_tracker_that_cannot_be_asked_is_sent_new_lines_alone() -> None:
    mirror = Kept(asked=False)
    with Mirrored("kept", mirror) as resumed:
        resumed.begin([line(1)])
        resumed.log(line(2))
        resumed.summarise("success", METRICS)
    assert mirror.page == page(line(2)) and mirror.endings == [Ending("success", METRICS)]


def test_the_rates_of_a_step_with_several_lines_and_null_are_sent_once_and_never() -> None:
    mirror = Kept()
    with Mirrored("kept", mirror) as opened:
        opened.begin([])
        opened.log(line(2))
        opened.log(line(2, "validation", loss=0.5, f1=None))
    assert mirror.page == [*page(line(2)), (2, "validation/loss", 0.5)]


def test_a_resumed_runs_numbers_have_the_times_of_a_run_that_was_not_interrupted() -> None:
    mirror = Kept()
    with Mirrored("kept", mirror) as resumed:
        resumed.begin([line(1), line(50)])
        resumed.log(line(60))
    assert [round(at - mirror.times[0], 6) for at in mirror.times] == [0, 4.9, 5.9]


def test_final_scores_are_sent_unless_the_last_evaluation_has_sent_them() -> None:
    mirror = Kept()
    with Mirrored("kept", mirror) as opened:
        opened.begin([])
        opened.log(line(4, "validation", loss=0.4, accuracy=0.8))
        opened.summarise("success", METRICS)
    names = [name for _, name, _ in mirror.page if "/" in name]
    assert names == [
        "validation/loss", "validation/accuracy", "best/validation/loss", "best/validation/accuracy", "test/loss",
    ]  # fmt: skip


def test_the_status_is_the_records_or_that_of_the_exception() -> None:
    mirror = Kept()
    for error in (None, ValueError(), KeyboardInterrupt()):
        with contextlib.suppress(BaseException), Mirrored("kept", mirror) as opened:
            opened.begin([])
            opened.summarise("diverged", {})
            if error is not None:
                raise error
    assert [ending.status for ending in mirror.endings] == ["diverged", "failed", "interrupted"]


@pytest.mark.parametrize("broken", ["start", "log", "finish"])
def test_an_error_of_the_tracker_is_one_warning_and_the_run_goes_on(
    broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    mirror = Kept(broken)
    with Mirrored("kept", mirror) as opened:
        opened.begin([])
        opened.log(line(1))
        opened.log(line(2))
        assert (opened.where is None) == (broken != "finish")
        opened.summarise("success", METRICS)
    assert [r.message for r in caplog.records] == ["kept failed, and the run goes on without it: no network"]


def test_a_damaged_line_of_a_resumed_run_turns_off_its_tracker_alone(caplog: pytest.LogCaptureFixture) -> None:
    def damaged() -> Any:
        yield line(1)
        raise ValueError("line 2 is damaged")

    with Mirrored("kept", Kept()) as opened:
        opened.begin(damaged())
        opened.log(line(3))
    assert [r.message for r in caplog.records] == ["kept failed, and the run goes on without it: line 2 is damaged"]


def test_none_and_disabled_write_nothing(tmp_path: Path) -> None:
    given = dict(tracker(tmp_path).mirror.page.__dict__)  # type: ignore[union-attr]
    for kind, mode in (("none", "auto"), ("wandb", "disabled"), ("mlflow", "disabled")):
        off = open_tracker(kind=kind, **{**given, "mode": mode})
        assert isinstance(off, NoTracker)
        with off:
            off.begin([line(1)])
            off.log(line(2))
            off.summarise("success", METRICS)
        assert off.where is None
    assert list(tmp_path.iterdir()) == []
