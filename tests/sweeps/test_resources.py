"""The slots: one run per core on a CPU, else one per GPU; each run is given its number of threads."""

import os
import subprocess
import sys
from typing import Any

import pytest
import torch

from loralab.errors import UserError
from loralab.sweeps.resources import GPU_PACK, check_pack, cores, pack_size, slots

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def gpus(monkeypatch: pytest.MonkeyPatch, count: int, visible: str | None = None) -> None:
    """A machine with this many visible GPUs."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)


def given(places: list[dict[str, str]]) -> list[str | None]:
    """Each slot's GPU."""
    return [place.get("CUDA_VISIBLE_DEVICES") for place in places]


def test_a_cpu_has_as_many_runs_as_its_cores_have_room_for() -> None:
    assert len(slots(device="cpu", threads=None, count=None, per_gpu=1)) == cores()
    assert len(slots(device="cpu", threads=1, count=None, per_gpu=1)) == cores()
    assert len(slots(device="cpu", threads=cores() + 1, count=None, per_gpu=1)) == 1


def test_the_number_of_slots_may_be_set() -> None:
    assert len(slots(device="cpu", threads=None, count=7, per_gpu=1)) == 7
    assert len(slots(device="cpu", threads=4, count=1, per_gpu=1)) == 1


@pytest.mark.parametrize(("threads", "each"), [(None, "1"), (1, "1"), (3, "3")])
def test_every_library_is_told_a_runs_threads_and_not_to_spin(threads: int | None, each: str) -> None:
    for place in slots(device="cpu", threads=threads, count=2, per_gpu=1):
        assert {name: place[name] for name in THREADS} == dict.fromkeys(THREADS, each)
        assert place["OMP_WAIT_POLICY"] == "PASSIVE"
        assert "CUDA_VISIBLE_DEVICES" not in place


def test_each_gpu_has_one_run_and_a_fair_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 3)
    for device in ("auto", "cuda"):
        places = slots(device=device, threads=None, count=None, per_gpu=1)
        assert given(places) == ["0", "1", "2"]
        assert {place["OMP_NUM_THREADS"] for place in places} == {str(max(1, cores() // 3))}


def test_gpus_go_by_the_names_that_the_environment_gives_them(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 2, "3,GPU-8f")
    assert given(slots(device="auto", threads=None, count=None, per_gpu=1)) == ["3", "GPU-8f"]


def test_runs_are_spread_over_the_gpus_before_a_gpu_has_two(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 2)
    assert given(slots(device="cuda", threads=2, count=None, per_gpu=2)) == ["0", "1", "0", "1"]
    assert given(slots(device="cuda", threads=2, count=2, per_gpu=2)) == ["0", "1"]
    assert given(slots(device="cuda", threads=2, count=1, per_gpu=1)) == ["0"]


def test_a_run_on_the_cpu_takes_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 2)
    assert given(slots(device="cpu", threads=None, count=2, per_gpu=1)) == [None, None]


@pytest.mark.parametrize("visible", ["", "-1"])
def test_hidden_gpus_are_none(visible: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 0, visible)
    assert given(slots(device="auto", threads=None, count=1, per_gpu=1)) == [None]


def test_one_gpu_by_number_is_refused_with_the_way_to_choose_it() -> None:
    with pytest.raises(UserError, match=r"train.device: got 'cuda:1'.*train.device=cuda, and CUDA_VISIBLE_DEVICES=1"):
        slots(device="cuda:1", threads=None, count=None, per_gpu=1)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_cores_are_those_that_the_process_may_use() -> None:
    code = (
        "import os; from loralab.sweeps.resources import cores\n"
        "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); print(cores())"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "1\n"
    assert 1 <= cores() <= len(os.sched_getaffinity(0))


def test_a_pack_is_as_large_as_asked_and_by_itself_on_gpus_alone() -> None:
    assert pack_size(5, list) == 5
    assert pack_size("auto", lambda: [{"OMP_NUM_THREADS": "1"}]) == 1
    assert pack_size("auto", lambda: [{"CUDA_VISIBLE_DEVICES": "3"}]) == GPU_PACK > 1


@pytest.mark.parametrize("pack", [0, -1, True, None, 2.5, "many", "8"])
def test_any_other_pack_is_refused(pack: Any) -> None:
    with pytest.raises(UserError, match=r"hydra.launcher.pack: got .*; it must be a whole number at least 1, or auto"):
        check_pack(pack)
