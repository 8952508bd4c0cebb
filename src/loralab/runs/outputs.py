"""What a run's model gives: classes by name, one number, or text. Read from its record, without its training data.

The records of older runs lack it: there it is read from the data, or, where that is gone or has changed, from the
shapes of the trained head.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from loralab import tasks
from loralab.errors import UserError
from loralab.runs.plan import Plan, task_settings
from loralab.store.record import OutputsRecord, Record

__all__ = ["HasOutputs", "Outputs", "as_recorded", "of_run", "recorded"]


class HasOutputs(Protocol):
    """The part of a task that the model's head depends on; a `RawTask` has it."""

    @property
    def kind(self) -> tasks.Kind: ...
    @property
    def labels(self) -> tuple[str, ...] | None: ...


@dataclass(frozen=True)
class Outputs:
    """kind, and the names of the classes in the order of their logits; None for a number and for text."""

    kind: tasks.Kind
    labels: tuple[str, ...] | None


def as_recorded(task: HasOutputs) -> OutputsRecord:
    """The entry `outputs` of a run's record."""
    return {"kind": task.kind, "labels": None if task.labels is None else list(task.labels)}


def of_run(planned: Plan, record: Record, folder: Path) -> Outputs:
    """The outputs of a finished run. folder: its trained weights, the last source for an older run."""
    known = recorded(record)
    if known is not None:
        return known
    settings = task_settings(planned.config.task)
    if settings.name in tasks.GENERATION:
        return Outputs("generation", None)
    try:
        if tasks.identity(settings, cache=None) == planned.identity["task"]["data"]:
            task = tasks.read(settings)
            return Outputs(task.kind, task.labels)
    except (UserError, OSError):  # the data is gone
        pass
    rows = _head_rows(folder)
    return Outputs("regression", None) if rows == 1 else Outputs("classification", _unnamed(rows))


def recorded(record: Record) -> Outputs | None:
    """The outputs in a record; None in an older one."""
    if "outputs" not in record:
        return None
    kind, labels = record["outputs"]["kind"], record["outputs"]["labels"]
    return Outputs(kind, None if labels is None else tuple(labels))


def _unnamed(count: int) -> tuple[str, ...]:
    """transformers' names of classes without a name."""
    return tuple(f"LABEL_{i}" for i in range(count))


def _head_rows(folder: Path) -> int:
    """The number of logits of the head in an adapter's or a model's files."""
    from safetensors import SafetensorError, safe_open

    try:
        if (folder / "config.json").is_file():  # a whole model
            names: dict[str, str] = json.loads((folder / "config.json").read_text())["id2label"]
            return len(names)
        description = next(file for file in folder.glob("adapter*.json") if file.is_file())
        weights = next(file for file in folder.glob("adapter*.safetensors") if file.is_file())
        found: dict[str, Any] = json.loads(description.read_text())
        head = found["head"] if "head" in found else found["modules_to_save"]
        with safe_open(weights, framework="pt") as tensors:
            shapes = {key: tensors.get_slice(key).get_shape() for key in tensors.keys()}  # noqa: SIM118  # no mapping
    except (StopIteration, OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(f"{folder}: the number of the head's outputs cannot be read there ({error})") from error
    inside = [shape for key, shape in shapes.items() if any(f".{path}." in f".{key}" for path in head)]
    matrices: list[list[int]] = [shape for shape in inside if len(shape) == 2]
    # a pooler or a hidden layer of the head is square; the last map has a row for each output
    outputs = [rows for rows, columns in matrices if rows != columns] or [rows for rows, _ in matrices]
    if not outputs:
        raise UserError(f"{folder}: holds no head, whose rows would tell the number of classes")
    return outputs[-1]
