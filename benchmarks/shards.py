"""A step's gradient on the CPU in three ways: one thread, torch's threads in every operation, one thread per shard.

    python benchmarks/shards.py            MiniLM with LoRA on q and v, batches of 32, a minute; on an idle machine

The ways alternate on the same batches of five lengths. Each figure is the minimum time, averaged over the lengths.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import mean

import torch
from hydra import compose
from torch import Tensor
from torch.nn.functional import cross_entropy

from loralab.config.compose import configs
from loralab.config.schema import from_hydra
from loralab.runs.build import adapted_backbone, read_task
from loralab.runs.plan import plan
from loralab.training.gradient import backward
from loralab.training.threads import Workers

CONF = Path(__file__).resolve().parents[1] / "conf"
LENGTHS = (14, 20, 27, 34, 44)


def batch(length: int) -> dict[str, Tensor]:
    """32 rows of random words, a third of them two tokens shorter."""
    generator = torch.Generator().manual_seed(length)
    mask = torch.ones(32, length, dtype=torch.long)
    mask[::3, -2:] = 0
    ids = torch.randint(1000, 20000, (32, length), generator=generator)
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.arange(32) % 2}


def main() -> None:
    """Measures and prints the times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=14)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as store, configs():
        planned = plan(from_hydra(compose("config", [f"store={store}", "train.device=cpu"])))
        model = adapted_backbone(planned, read_task(planned)).model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    ways = {"one thread": (1, 1), "threads in every operation": (asked.threads, 1), "shards": (1, asked.threads)}
    least = {(way, length): float("inf") for way in ways for length in LENGTHS}
    for _ in range(asked.repeats):
        for way, (threads, count) in ways.items():
            torch.set_num_threads(threads)
            with Workers(count) as workers:
                for timed, length in enumerate((LENGTHS[-1], *LENGTHS)):  # the first batch warms up the workers
                    start = time.perf_counter()
                    backward(
                        model,
                        batch(length),
                        loss_of=cross_entropy,
                        scaler=scaler,
                        parameters=parameters,
                        workers=workers,
                        parts=count,
                    )
                    if timed:
                        least[way, length] = min(least[way, length], time.perf_counter() - start)
    for way in ways:
        print(f"{way:<28}{1e3 * mean(least[way, length] for length in LENGTHS):7.1f} ms")


if __name__ == "__main__":
    main()
