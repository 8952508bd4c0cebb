"""Cost of probes: CPU seconds of a probe and of a training step, both measured in one run, on one thread.

    python benchmarks/probes.py            MiniLM, rotten_tomatoes, LoRA on q and v, batches of 32; a minute

The run probes every 4th update, for many probes to time. The cost of `probe.every=50` is computed from them: seconds of
a probe / (50 * seconds of a step). Times are the process's CPU time, which other processes disturb less than wall time.
"""

import argparse
import contextlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from hydra import compose
from torch import Tensor
from torch.nn.functional import cross_entropy

from loralab import device
from loralab.config.compose import configs
from loralab.config.schema import from_hydra
from loralab.methods.lora import linear_factors
from loralab.runs.build import adapted_backbone, objective, read_task
from loralab.runs.plan import plan
from loralab.training import optim
from loralab.training.batches import Order, by_length
from loralab.training.gradient import CPU_PARTS, backward
from loralab.training.loop import Batch, Probing, Progress, complete, train
from loralab.training.probes import ROWS_AT_ONCE, probing
from loralab.training.threads import Workers

CONF = Path(__file__).resolve().parents[1] / "conf"
EVERY = 4
INTERVAL = 50  # the interval advised in conf/config.yaml


def timed(look: Probing, spent: list[float]) -> Probing:
    """`look`, with the CPU seconds of each probe, excluding the update inside it, appended to `spent`."""

    @contextlib.contextmanager
    def probe(progress: Progress) -> Iterator[None]:
        start = time.process_time()
        with look(progress):
            before = time.process_time() - start
            yield
            start = time.process_time()
        if progress.step % EVERY == 0:  # excludes the first probe, a warm-up
            spent.append(before + time.process_time() - start)

    return probe


def measure(steps: int, overrides: Sequence[str]) -> tuple[list[float], float]:
    """CPU seconds of each probe, and of all steps after the first probed one together."""
    with tempfile.TemporaryDirectory() as store, configs():
        fixed = (f"store={store}", "train.device=cpu", "tracker=none")
        config = from_hydra(compose("config", [*fixed, *overrides]))
        planned = plan(config)
        device.prepare(planned.device, threads=1)
        task = read_task(planned)
        backbone = adapted_backbone(planned, task)
        asked = objective(planned, task, backbone)
    model: Any = backbone.model
    order = Order(asked.lengths("train"), batch_size=config.train.batch_size, seed=0, bucketing=True)

    rates = {key: getattr(config.optim, key) for key in ("lr", "head_lr", "embedding_lr", "weight_decay")}
    groups = optim.param_groups(model, head=backbone.head, ratio=config.lora.ratio, **rates)
    lengths = asked.lengths("validation")[: config.probe.rows]
    spent: list[float] = []
    look = probing(
        model,
        linear_factors(model),
        [asked.batch("validation", at) for at in by_length(lengths, batch_size=ROWS_AT_ONCE)],
        every=EVERY,
        tell=lambda _progress, _values: None,
    )
    starts: list[float] = []

    def checkpoint(_progress: Progress) -> None:
        starts.append(time.process_time())

    with Workers(1) as workers:
        scaler = torch.amp.GradScaler("cpu", enabled=False)

        def gradient(step: int) -> Tensor:
            return backward(
                model, asked.batch("train", order.batch(step)), loss_of=cross_entropy, scaler=scaler,
                parameters=[p for group in groups for p in group["params"]], workers=workers, parts=CPU_PARTS,
            )  # fmt: skip

        training = train(
            model,
            optim.adamw(groups, betas=config.optim.betas, eps=config.optim.eps),
            steps=EVERY + steps,
            fetch=lambda step: Batch(0, partial(gradient, step)),
            factor=lambda _step: 1.0,
            scaler=scaler,
            clip=config.optim.clip,
            log_every=1000,
            progress=Progress(),
            evaluation_due=lambda _step: False,
            evaluate=lambda _progress: None,
            log=lambda _progress, _loss: None,
            checkpoint=checkpoint,
            probing=timed(look, spent),
        )
        complete(training)
    return spent[1:], starts[-1] - starts[EVERY]


def main() -> None:
    """Measures and prints the costs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60, help=f"a multiple of {EVERY} (default: 60)")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as on the command line of train.py")
    asked = parser.parse_args()
    spent, seconds = measure(asked.steps, asked.overrides)
    step = (seconds - sum(spent)) / asked.steps
    print(f"a step   {1e3 * step:7.1f} ms of CPU time, over {asked.steps}")
    print(f"a probe  {1e3 * mean(spent):7.1f} ms, over {len(spent)} ({1e3 * min(spent):.1f} to {1e3 * max(spent):.1f})")
    print(f"probe.every={INTERVAL}: {mean(spent) / (INTERVAL * step):.2%} of a run without probes")


if __name__ == "__main__":
    main()
