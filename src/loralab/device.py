"""The device, threads and precision of a run.

bf16 and fp16: the frozen weights and the activations are in low precision; factors, head, biases and the optimizer's
state stay in fp32. Full fine-tuning has no frozen weights: all stay in fp32, and the products are in low precision
(`loralab.methods.full`).
"""

import os
import platform
import resource
import sys
from pathlib import Path

import torch

from loralab.errors import UserError

__all__ = [
    "DTYPES",
    "cpu_has_bf16",
    "describe",
    "imitated",
    "memory_peak",
    "pick_device",
    "pick_precision",
    "prepare",
]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
OWN_THREADS = torch.get_num_threads()
# Below this width bf16 loses on a CPU: 0.65x at width 64, 3x at width 768 (AVX512-BF16, two cores).
CPU_BF16_WIDTH = 256


def pick_device(asked: str, *, key: str = "train.device") -> torch.device:
    """`auto` is cuda, else mps, else cpu; raises UserError, which names `key`, for a device that is not there."""
    if asked == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    kind, _, index = asked.partition(":")
    if not there[kind]:
        raise UserError(f"{key}: got {asked!r}, but this machine has no {kind}; use {key}=auto")
    if index and (not index.isdigit() or int(index) >= torch.cuda.device_count()):
        raise UserError(f"{key}: got {asked!r}; this machine has {torch.cuda.device_count()} CUDA devices, from 0")
    return torch.device(asked)


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bf16 matrices in hardware (AVX512-BF16 or AMX, or Arm's bf16)."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return False
    flags = next((line for line in info.read_text().splitlines() if line.startswith(("flags", "Features"))), "")
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(flags.split()))


def pick_precision(asked: str, device: torch.device, *, width: int) -> str:
    """`auto` is bf16 where the hardware gains from it, else fp32; raises UserError for what the device cannot do."""
    if asked == "auto":
        if device.type == "cuda":
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
        return "bf16" if device.type == "cpu" and width >= CPU_BF16_WIDTH and cpu_has_bf16() else "fp32"
    if asked == "fp16" and device.type != "cuda":
        raise UserError(
            f"train.precision: got 'fp16', which needs a CUDA device (this one is {device.type}); use bf16 or fp32"
        )
    return asked


def imitated(precision: str, device: torch.device) -> str | None:
    """A warning where the CPU has no instructions for bf16, which then takes longer than fp32.

    One thread of an AVX512 CPU without AVX512-BF16, MiniLM, batches of 32: LoRA makes .63 steps/s (fp32: 1.78), full
    fine-tuning .35 (1.05).
    """
    if precision == "bf16" and device.type == "cpu" and platform.system() == "Linux" and not cpu_has_bf16():
        return "train.precision=bf16: this CPU only imitates it; train.precision=fp32 is about three times as fast"
    return None


def prepare(device: torch.device, *, threads: int | None) -> int:
    """The number of CPU threads (None: torch's default); on CUDA, also turns deterministic kernels on.

    On a CPU torch computes every operation on one thread, so that results do not depend on the number; the threads
    compute micro-batches, or batches of an evaluation (`loralab.training.threads`).
    """
    most = 8 * (os.cpu_count() or 1)
    if threads is not None and threads > most:
        raise UserError(f"train.threads: got {threads}; at most {most} here, eight times the cores")
    count = threads or OWN_THREADS
    torch.set_num_threads(1 if device.type == "cpu" else count)
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
    return count


def describe(device: torch.device) -> str:
    """The device's name: the GPU's, or the CPU's model."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    models = (
        [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.exists()
        else []
    )
    return f"{device.type} ({models[0] if models else platform.processor() or platform.machine()})"


def memory_peak(device: torch.device) -> dict[str, int | None]:
    """Peak bytes: of this process on the host (its whole life), and of torch's allocator on the device."""
    unit = 1 if sys.platform == "darwin" else 1024
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {
        "host_bytes": host,
        "device_bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
    }
