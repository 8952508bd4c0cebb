"""Laws of interrupts: a real signal to this process becomes Interrupted where it is looked at, and nowhere else."""

import os
import signal
from collections.abc import Iterator

import pytest

from loralab.training.interrupt import Interrupted, Interrupts


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
