"""Device, precision and threads."""

import platform

import pytest
import torch

from loralab import device
from loralab.errors import UserError

CPU = torch.device("cpu")


def test_auto_finds_a_device_that_works() -> None:
    assert torch.ones(2, device=device.pick_device("auto")).sum().item() == 2
    assert device.pick_device("cpu") == CPU


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_one_line() -> None:
    with pytest.raises(
        UserError, match=r"^train\.device: got 'cuda:1', but this machine has no cuda; use train\.device=auto$"
    ):
        device.pick_device("cuda:1")


def test_fp16_needs_a_gpu() -> None:
    with pytest.raises(UserError, match=r"train\.precision: got 'fp16'"):
        device.pick_precision("fp16", CPU, width=768)


def test_auto_precision_is_bf16_only_where_it_gains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "cpu_has_bf16", lambda: True)
    assert device.pick_precision("auto", CPU, width=64) == "fp32"
    assert device.pick_precision("auto", CPU, width=384) == "bf16"
    monkeypatch.setattr(device, "cpu_has_bf16", lambda: False)
    assert device.pick_precision("auto", CPU, width=384) == "fp32"
    assert device.pick_precision("bf16", CPU, width=64) == "bf16"


@pytest.mark.parametrize(
    ("precision", "system", "has", "said"),
    [("bf16", "Linux", False, True), ("bf16", "Linux", True, False), ("bf16", "Darwin", False, False),
     ("fp32", "Linux", False, False)],
)  # fmt: skip
def test_bf16_that_the_cpu_imitates_is_said(
    monkeypatch: pytest.MonkeyPatch, precision: str, system: str, has: bool, said: bool
) -> None:
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(device, "cpu_has_bf16", lambda: has)
    line = device.imitated(precision, CPU)
    assert (line is not None) == said
    assert line is None or "train.precision=fp32" in line
    assert device.imitated(precision, torch.device("cuda")) is None


def test_threads_of_one_run_do_not_reach_the_next() -> None:
    own = torch.get_num_threads()
    assert device.prepare(CPU, threads=1) == 1
    assert device.prepare(CPU, threads=None) == device.OWN_THREADS
    torch.set_num_threads(own)


def test_memory_peak_counts_what_was_held() -> None:
    before = device.memory_peak(CPU)["host_bytes"]
    assert before is not None and before > 50_000_000
    held = torch.ones(before // 4 + 25_000_000)
    after = device.memory_peak(CPU)["host_bytes"]
    assert after is not None and after >= held.numel() * 4
    assert device.memory_peak(CPU)["device_bytes"] is None
