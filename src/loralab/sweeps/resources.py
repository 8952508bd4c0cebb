"""How many runs a machine trains at once, and the environment of each: one per GPU, or one per core."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from loralab.config.checks import brief
from loralab.errors import UserError

__all__ = ["check_pack", "cores", "pack_size", "slots"]

# Runs of a pack on a GPU with hydra.launcher.pack=auto; not tuned.
GPU_PACK = 8


def slots(*, device: str, threads: int | None, count: int | None, per_gpu: int) -> list[dict[str, str]]:
    """The environment of each worker.

    device: train.device of the runs; threads: of each run, None: one on a CPU, an equal share of the cores on a GPU
    machine; count: workers, None: `per_gpu` per GPU, or as many as there are cores for: on two cores two
    processes of one thread did 1.5x the work of one process of two (benchmarks/results/step_time.csv).
    """
    gpus = _gpus() if device in ("auto", "cuda") else []
    if device.startswith("cuda:"):
        raise UserError(
            f"train.device: got {device!r}, but the pool assigns a GPU to each worker; use train.device=cuda, "
            f"and CUDA_VISIBLE_DEVICES={device.partition(':')[2]} to choose"
        )
    if gpus:
        places = [{"CUDA_VISIBLE_DEVICES": gpu} for _ in range(per_gpu) for gpu in gpus]  # few runs spread out
        places = places[:count]
    else:
        places = [{} for _ in range(count or max(1, cores() // (threads or 1)))]
    each = threads or (max(1, cores() // len(places)) if gpus else 1)
    return [{**place, **_threads(each)} for place in places]


def check_pack(pack: object) -> None:
    """Raises UserError unless `hydra.launcher.pack` is a number of runs or auto."""
    if pack != "auto" and (not isinstance(pack, int) or isinstance(pack, bool) or pack < 1):
        raise UserError(f"hydra.launcher.pack: got {brief(pack)}; it must be a whole number at least 1, or auto")


def pack_size(pack: int | str, places: Callable[[], Sequence[Mapping[str, str]]]) -> int:
    """The most runs of a pack; auto: GPU_PACK on a GPU, else 1. places: give the environment of each worker."""
    if isinstance(pack, int):
        return pack
    return GPU_PACK if any("CUDA_VISIBLE_DEVICES" in place for place in places()) else 1


def cores() -> int:
    """CPU cores that this process may use, by its affinity and its control group's quota."""
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.exists():
        most, period = quota.read_text().split()
        if most != "max":
            mine = min(mine, max(1, math.floor(int(most) / int(period))))
    return mine


def _gpus() -> list[str]:
    """The CUDA devices that this process sees, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = seen.split(",") if seen else [str(i) for i in range(torch.cuda.device_count())]
    return names[: torch.cuda.device_count()]


def _threads(count: int) -> Mapping[str, str]:
    # Waiting threads sleep, so that they leave the cores to other runs.
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {**dict.fromkeys(names, str(count)), "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
