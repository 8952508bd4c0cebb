"""A page of a run, and its lines, for the tests of trackers."""

from pathlib import Path
from typing import Any

from loralab.store.trackers import Mirrored, open_tracker

__all__ = ["METRICS", "line", "numbers", "tracker"]

METRICS: dict[str, Any] = {
    "primary": "accuracy",
    "validation": {
        "last": {"step": 4, "loss": 0.4, "accuracy": 0.8},
        "best": {"step": 2, "loss": 0.5, "accuracy": 0.9},
    },
    "test": {"last": {"step": 4, "loss": 0.6, "accuracy": None}, "best": None},
}


def line(step: int, split: str = "train", **values: float | None) -> dict[str, Any]:
    """A line of metrics.jsonl; without values, a loss of 1 / step."""
    values = values or {"loss": 1 / step}
    return {"step": step, "split": split, "values": values, "lr_A": 1e-3, "lr_B": 16e-3, "seconds": step / 10}


def numbers(step: int) -> dict[str, float]:
    """What is on the page of a line of training loss."""
    return {"train/loss": 1 / step, "lr_A": 1e-3, "lr_B": 16e-3, "seconds": step / 10}


def tracker(store: Path, kind: str = "wandb", **settings: Any) -> Mirrored:
    """The tracker of the run called `run-name`, whose hash is 0123456789."""
    given: dict[str, Any] = {
        "kind": kind, "mode": "auto", "name": "run-name", "run_id": "0123456789", "project": "p", "entity": None,
        "group": "study", "tags": ["a"], "store": store, "directory": store / "runs" / "tiny-0123456789",
        "config": {"lora": {"ratio": 16.0, "targets": ["q", "v"]}, "code": {"commit": "abc", "diff": None}},
    }  # fmt: skip
    opened = open_tracker(**{**given, **settings})
    assert isinstance(opened, Mirrored)
    return opened
