"""submitit's signal handlers and its error are recognised."""

import signal

import pytest

from loralab.compat.submitit import handles, lacks_slurm


def test_only_a_handler_of_submitits_is_submitits() -> None:
    job_environment = pytest.importorskip("submitit.core.job_environment", reason="needs the extra `slurm`")
    handler = job_environment.SignalHandler(None, None, None)
    before = signal.signal(signal.SIGUSR2, handler.bypass)
    try:
        assert handles(signal.SIGUSR2) and not handles(signal.SIGUSR1)
        signal.signal(signal.SIGUSR2, lambda *_: None)
        assert not handles(signal.SIGUSR2)
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_without_slurm_submitit_raises_what_is_known() -> None:
    executor = pytest.importorskip("submitit.slurm.slurm", reason="needs the extra `slurm`").SlurmExecutor
    with pytest.raises(RuntimeError) as caught:
        executor(folder="unused")
    assert lacks_slurm(caught.value) and not lacks_slurm(RuntimeError("another"))
