"""The types of record.json, the result of a training, which `loralab.runs.record` makes.

A key that older records lack is NotRequired.
"""

from typing import Any, Literal, NotRequired, TypedDict

__all__ = [
    "BackboneRecord",
    "CodeVersion",
    "Ending",
    "FailedRecord",
    "Group",
    "Memory",
    "Origin",
    "OutputsRecord",
    "Parameters",
    "Pause",
    "PausedRecord",
    "PretrainingEnding",
    "PretrainingRecord",
    "Record",
    "Results",
    "RunEnding",
    "RunOrigin",
    "RunResults",
    "Scores",
    "SplitScores",
    "Timing",
    "kept",
    "split_scores",
]

Scores = dict[str, float | None]
"""The step and each metric's value at that step, None where it is undefined."""


class SplitScores(TypedDict):
    """The scores of one split at the best validation step and at the last step, None where it was not evaluated."""

    best: Scores | None
    last: Scores | None


class Memory(TypedDict):
    """Peak bytes."""

    host_bytes: int
    device_bytes: int | None


class Parameters(TypedDict):
    """Numbers of parameters; `head`: of the trained head, which a pretraining has none of."""

    total: int
    trainable: int
    head: NotRequired[int]


class Timing(TypedDict):
    """Seconds, rates over training alone, and counts."""

    seconds: float
    steps_per_second: float
    tokens_per_second: float
    training_seconds: NotRequired[float]
    evaluation_seconds: NotRequired[float]
    set_up_seconds: NotRequired[float]
    tokens: NotRequired[float]
    steps_executed: NotRequired[float]


class Group(TypedDict):
    """A parameter group with its resolved learning rate and weight decay."""

    name: str
    tensors: int
    parameters: int
    lr: float
    weight_decay: float


class CodeVersion(TypedDict):
    """The commit of loralab's checkout and the hash of its uncommitted diff; None without one."""

    commit: str | None
    diff: str | None


class OutputsRecord(TypedDict):
    """What the model gives; labels: the names of the classes in the order of their logits, None if it has none."""

    kind: Literal["classification", "regression", "generation"]
    labels: list[str] | None


class BackboneRecord(TypedDict):
    """Where the backbone was (a hub id, an absolute directory, or "random"), its family, and its width."""

    origin: str
    family: str
    width: NotRequired[int]


class Origin(TypedDict):
    """What was trained, by which code, and when it started (seconds since the epoch)."""

    name: str
    config: dict[str, Any]
    identity: dict[str, Any]
    git: CodeVersion
    versions: dict[str, str]
    started: float


class RunOrigin(Origin):
    """The origin of a run; run_id: the hash of its identity."""

    run_id: str


class Results(TypedDict):
    """What a training has come to; steps: how many it took."""

    error: None
    metrics: dict[str, Any]  # primary: the metric's name; each split's name: its SplitScores
    steps: int
    groups: list[Group]
    parameters: Parameters
    timing: Timing
    memory: Memory
    device: str
    threads: int


class Ending(Results):
    """The results of a training that ended in success or divergence."""

    status: Literal["success", "diverged"]


class RunResults(Results):
    """The results of a run, with what loads its model again, the number of ranks, and that of examples by split.

    packed: the most runs that were trained together with it in one pack, itself among them.
    """

    backbone: NotRequired[BackboneRecord]
    outputs: NotRequired[OutputsRecord]
    ranks: NotRequired[int]
    packed: NotRequired[int]
    rows: dict[str, int]


class RunEnding(Ending, RunResults):
    """The results of a run that ended; total_steps: of the whole schedule, where `train.patience` ended it before."""

    total_steps: NotRequired[int]


class Pause(RunResults):
    """The results of a run up to a pause: scores of validation alone; total_steps: those of the whole run."""

    status: Literal["paused"]
    total_steps: int


class Record(RunOrigin, RunEnding):
    """A finished run's record."""

    ended: float


class PausedRecord(RunOrigin, Pause):
    """The record of a run that goes on from its checkpoint when its command is given without `train.pause_at`."""

    ended: float


class FailedRecord(RunOrigin):
    """The record of a run that ended in an exception; such a run is tried again."""

    status: Literal["failed"]
    error: str
    metrics: None
    ended: float


class PretrainingEnding(Ending):
    """The ending of a pretraining, with the loss of predicting by token frequency alone (nats)."""

    unigram_entropy: float
    blocks: dict[str, int]


class PretrainingRecord(Origin, PretrainingEnding):
    """A pretrained model's record."""

    ended: float


def kept(record: Record) -> tuple[Literal["last", "best"], int]:
    """Whether a run's saved weights are those of its last or of its best validation step, and that step."""
    at: Literal["last", "best"] = "best" if record["config"]["train"].get("keep") == "best" else "last"
    return at, record["metrics"]["validation"][at]["step"]


def split_scores(metrics: dict[str, Any]) -> dict[str, SplitScores]:
    """The scores of each split, validation first: a record's metrics without the entry `primary`."""
    return {split: scores for split, scores in metrics.items() if split != "primary"}
