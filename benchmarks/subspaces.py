"""Cost of training in a random subspace: CPU time of a step, relative to full fine-tuning, on one thread.

    python benchmarks/subspaces.py         MiniLM in fp32, batches of 16 x 12 and 32 x 27 tokens; three minutes

A step: forward, backward, AdamW. Each repeat measures every arm once, in a new order. Prints the geometric mean of the
paired ratios, with its 95% interval (Student t).
"""

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from loralab.methods import full, intrinsic
from loralab.methods.subspace_projections import PROJECTIONS
from loralab.studies import timing
from loralab.studies.stats import ratio_interval
from loralab.training.evaluate import forward
from loralab.training.optim import adamw

DIMS = (100, 1000, 10_000)
SHAPES = ((16, 12), (32, 27))  # about the batches of TREC's questions and Rotten Tomatoes' sentences
FULL = "full fine-tuning"
Batch = dict[str, torch.Tensor]


def arm(attach: Callable[[Any], None]) -> Callable[[Batch], None]:
    """The training step of a new MiniLM."""
    model: Any = timing.backbone("minilm").model
    attach(model)
    optimizer = adamw(
        [{"params": [p for p in model.parameters() if p.requires_grad], "lr": 1e-4}], betas=(0.9, 0.999), eps=1e-8
    )

    def step(batch: Batch) -> None:
        torch.autograd.backward(cross_entropy(forward(model, batch), batch["labels"]))
        optimizer.step()
        optimizer.zero_grad()

    return step


def arms() -> Iterator[tuple[str, Callable[[Batch], None]]]:
    head = ("classifier",)
    yield FULL, arm(partial(full.attach, head=head, device=torch.device("cpu"), dtype=torch.float32))
    for projection in PROJECTIONS:
        for dim in DIMS:
            settings: dict[str, Any] = {"dim": dim, "projection": projection, "seed": 0}
            yield f"{projection}, d = {dim:,}", arm(partial(intrinsic.attach, head=head, **settings))


def main() -> None:
    """Measures and prints the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10)
    asked = parser.parse_args()
    made = dict(arms())
    for rows, length in SHAPES:
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(1000, 30_000, (rows, length), generator=generator)
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids[:, 0] % 2}
        taken: dict[str, list[float]] = {name: [] for name in made}
        with timing.one_thread():
            actions = {name: lambda _repeat, step=step, batch=batch: step(batch) for name, step in made.items()}
            for name, times in timing.in_turn(actions, repeats=asked.repeats):
                taken[name].append(times["cpu"])
        print(f"{rows} x {length} tokens: {FULL} {1e3 * min(taken[FULL]):.0f} ms a step")
        for name in list(made)[1:]:
            found = ratio_interval(taken[name], taken[FULL])
            print(f"  {name:20} {found.estimate:.2f} [{found.low:.2f}, {found.high:.2f}] times that")


if __name__ == "__main__":
    main()
