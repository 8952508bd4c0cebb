"""record.json: what a training came to, as it is on disk and as its readers index it. `loralab.runs.record` makes it.

A key that older records lack is NotRequired.
"""

from typing import Any, Literal, NotRequired, TypedDict

__all__ = [
    "Ending",
    "FailedRecord",
    "Memory",
    "Origin",
    "PretrainingEnding",
    "PretrainingRecord",
    "Record",
    "RunEnding",
    "RunOrigin",
    "Scores",
    "SplitScores",
    "split_scores",
]

Scores = dict[str, float | None]
"""The step and each metric at it; a missing number is None."""


class SplitScores(TypedDict):
    """Of one split: at the best validation step and at the last step, None where it was not evaluated."""

    best: Scores | None
    last: Scores | None


class Memory(TypedDict):
    """Peak bytes."""

    host_bytes: int
    device_bytes: int | None


class Origin(TypedDict):
    """What was trained, by which code, and when it started (seconds since the epoch)."""

    name: str
    config: dict[str, Any]
    identity: dict[str, Any]
    git: dict[str, str | None]
    versions: dict[str, str]
    started: float


class RunOrigin(Origin):
    """The same of a run, whose id is the hash of its identity."""

    run_id: str


class Ending(TypedDict):
    """What a training that came to its end has, whether it succeeded or diverged."""

    status: Literal["success", "diverged"]
    error: None
    metrics: dict[str, Any]  # primary: the metric's name; each split's name: its SplitScores
    steps: int
    groups: list[dict[str, Any]]
    parameters: dict[str, int]
    timing: dict[str, float]
    memory: Memory
    device: str
    threads: int


class RunEnding(Ending):
    """The same of a run, with the examples of each split."""

    ranks: NotRequired[int]
    rows: dict[str, int]


class Record(RunOrigin, RunEnding):
    """A finished run's record."""

    ended: float


class FailedRecord(RunOrigin):
    """The record of a run that ended in an exception; it is tried again."""

    status: Literal["failed"]
    error: str
    metrics: None
    ended: float


class PretrainingEnding(Ending):
    """The same of a pretraining, beside the loss of predicting by token frequency alone (nats)."""

    unigram_entropy: float
    blocks: dict[str, int]


class PretrainingRecord(Origin, PretrainingEnding):
    """A pretrained model's record."""

    ended: float


def split_scores(metrics: dict[str, Any]) -> dict[str, SplitScores]:
    """A record's metrics without the name of the primary one: the scores of each split, validation first."""
    return {split: scores for split, scores in metrics.items() if split != "primary"}
