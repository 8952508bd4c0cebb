"""The loop on a small real regression: its calls, when it stops, and that Progress survives."""

import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from loralab.training.gradient import backward
from loralab.training.loop import Batch, Progress, complete, exploded, train
from loralab.training.threads import Workers


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.map = nn.Linear(3, 1)

    def forward(self, x: Tensor, attention_mask: Tensor) -> Any:
        return type("Output", (), {"logits": self.map(x)})


def due(net: Net, batch: dict[str, Tensor]) -> Batch:
    """A batch for the loop, of 5 tokens."""

    def alone() -> Tensor:
        return backward(
            net, batch, loss_of=lambda logits, labels: (logits.squeeze(-1) - labels).square().mean(),
            scaler=torch.amp.GradScaler("cpu", enabled=False), parameters=[*net.parameters()],
            workers=Workers(1), parts=1,
        )  # fmt: skip

    return Batch(5, alone)


class Trace:
    """Runs the loop and records its calls."""

    def __init__(
        self, *, lr: float = 0.05, steps: int = 10, log_every: int = 4, scale: float = 1.0, clip: float | None = None
    ) -> None:
        self.logged: list[tuple[int, float]] = []
        self.evaluated: list[int] = []
        self.checkpoints: list[int] = []
        self.progress = Progress()
        self.net = Net()
        optimizer = torch.optim.SGD([{"params": list(self.net.parameters()), "peak_lr": lr, "lr": lr}])
        self.arguments: dict[str, Any] = {
            "steps": steps,
            "fetch": lambda step: due(self.net, self.batch(step, scale)),
            "factor": lambda t: 1.0,
            "scaler": torch.amp.GradScaler("cpu", enabled=False),
            "clip": clip,
            "log_every": log_every,
            "evaluation_due": lambda step: step % 5 == 0,
            "evaluate": lambda progress: self.evaluated.append(progress.step),
            "log": lambda progress, loss: self.logged.append((progress.step, loss)),
            "checkpoint": lambda progress: self.checkpoints.append(progress.step),
        }
        self.optimizer = optimizer

    @staticmethod
    def batch(step: int, scale: float) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(8, 3, generator=generator) * scale
        return {"x": x, "attention_mask": torch.ones(8, 1), "labels": x.sum(1)}

    def go(self) -> "Trace":
        complete(train(self.net, self.optimizer, progress=self.progress, **self.arguments))
        return self


def test_logs_means_evaluates_when_due_and_checkpoints_between_steps() -> None:
    trace = Trace().go()
    assert [step for step, _ in trace.logged] == [4, 8, 10]
    assert trace.evaluated == [0, 5, 10]
    assert trace.checkpoints == list(range(11))
    assert trace.progress.tokens == 50
    assert trace.logged[-1][1] < trace.logged[0][1]


def test_divergence_ends_the_run() -> None:
    trace = Trace(lr=50.0, steps=100, log_every=2).go()
    assert trace.progress.diverged
    assert trace.progress.step < 100


def test_a_stable_run_does_not_diverge() -> None:
    assert not Trace(steps=50).go().progress.diverged


@pytest.mark.parametrize("known", [True, False])
def test_a_later_batch_of_large_labels_is_no_divergence_where_they_are_known(known: bool) -> None:
    trace = Trace(lr=1e-9, steps=9, log_every=1)

    def fetch(step: int) -> Batch:
        batch = trace.batch(step, 1.0)
        return due(trace.net, {**batch, "labels": batch["labels"] + 1000.0} if step == 6 else batch)

    trace.arguments |= {"fetch": fetch, "start": 1e6 if known else 0.0}
    assert trace.go().progress.diverged != known


def test_clipping_bounds_the_step() -> None:
    free, clipped = Trace(lr=1.0, steps=1, scale=10.0), Trace(lr=1.0, steps=1, scale=10.0, clip=0.1)
    moved = []
    for trace in (free, clipped):
        before = [p.detach().clone() for p in trace.net.parameters()]
        trace.go()
        change = [(p.detach() - b).square().sum() for p, b in zip(trace.net.parameters(), before, strict=True)]
        moved.append(float(torch.stack(change).sum().sqrt()))
    assert moved[1] == pytest.approx(0.1, rel=1e-4)
    assert moved[0] > 1


def test_progress_survives_a_checkpoint_in_the_middle_of_a_line() -> None:
    whole = Trace().go()

    class Cut(Exception):
        pass

    cut = Trace()

    def stop(progress: Progress) -> None:
        if progress.step == 6:
            raise Cut

    cut.arguments["checkpoint"] = stop
    with pytest.raises(Cut):
        cut.go()
    cut.progress = Progress.from_state(json.loads(json.dumps(cut.progress.to_state())))
    cut.arguments["checkpoint"] = lambda progress: None
    cut.go()
    assert cut.logged == whole.logged
    assert cut.evaluated == whole.evaluated
    assert all((a == b).all() for a, b in zip(cut.net.parameters(), whole.net.parameters(), strict=True))


@pytest.mark.parametrize(
    ("loss", "start", "expected"),
    [
        (None, 1.0, True), (math.nan, 1.0, True), (math.inf, None, True), (1e30, 0.5, True), (20.1, None, True),
        (20.1, 0.7, True), (19.9, 0.0, False), (99.0, 5.0, False), (101.0, 5.0, True), (0.0, 0.0, False),
    ],
)  # fmt: skip
def test_a_loss_has_exploded_above_twenty_times_the_start_and_one(
    loss: float | None, start: float | None, expected: bool
) -> None:
    assert exploded(loss, start) == expected
