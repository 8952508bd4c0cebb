"""Interrupts: a real signal to this process raises Interrupted at the check, and nowhere else."""

import os
import signal
from collections.abc import Iterator

import pytest

from loralab.training.signals import Interrupted, Interrupts


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_noted_and_raised_at_the_check(number: signal.Signals, status: int) -> None:
    before = signal.getsignal(number)
    with Interrupts() as interrupts:
        interrupts.check()
        os.kill(os.getpid(), number)
        with pytest.raises(Interrupted) as caught:
            interrupts.check()
    assert caught.value.status == status
    assert signal.getsignal(number) is before


@pytest.fixture
def default_handler() -> Iterator[None]:
    """Python's own handler: a process that was started in the background of a script inherits an ignored SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("default_handler")
def test_a_second_signal_acts_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), Interrupts():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_in_a_job_of_submitits_the_signal_to_requeue_is_passed_on_once_the_run_has_stopped() -> None:
    told: list[int] = []

    def handler(number: int, _: object) -> None:
        told.append(number)

    handler.__module__ = "submitit.core.job_environment"
    before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGUSR2)}
    try:
        with pytest.raises(Interrupted), Interrupts() as interrupts:
            for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGUSR2):
                os.kill(os.getpid(), number)
            assert told == [signal.SIGTERM]  # submitit ignores it
            interrupts.check()
        assert told == [signal.SIGTERM, signal.SIGUSR2]
    finally:
        for number, handle in before.items():
            signal.signal(number, handle)


def test_elsewhere_the_signal_to_requeue_is_left_alone() -> None:
    before = signal.getsignal(signal.SIGUSR2)
    with Interrupts():
        assert signal.getsignal(signal.SIGUSR2) is before
