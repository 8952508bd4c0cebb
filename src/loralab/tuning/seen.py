"""What a session sees of a run: its validation losses up to the step where the trial was to pause.

A run that went on further, for another trial or another command, is cut at that step, so that a session that was
killed sees again exactly what it saw before.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from loralab.config.shares import pause_step
from loralab.errors import UserError
from loralab.files import read_regular
from loralab.store.metrics_file import MetricsFile, parsed, unreadable
from loralab.store.run_directory import RunDirectory
from loralab.tuning.trial import Observed, Settings

__all__ = ["Look", "look", "share_of"]


@dataclass(frozen=True)
class Look:
    """A trial and its run. share: of the steps, trained; seconds: of training and evaluation; error: why it failed."""

    run: str
    observed: Observed
    share: float
    seconds: float
    error: str = ""


def look(run: RunDirectory, settings: Settings, *, steps: int, until: float | None = None) -> Look | None:
    """The run up to the share `until` of its `steps`, None: as far as it has come; None if it has not come so far.

    Raises UserError for damaged files.
    """
    record = run.record()
    if record is None:
        return None
    if record["status"] == "failed":
        error = record["error"].strip().splitlines()
        return Look(run.path.name, Observed(settings, "failed", ()), 0.0, 0.0, error[-1] if error else "")
    last = pause_step(until if until is not None and until < 1 else None, steps)
    if until is not None and record["status"] == "paused" and record["steps"] < last:
        return None
    lines = [line for line in _validated(run.path) if line["step"] <= last]
    curve = tuple((share_of(line["step"], steps), _finite(line["values"].get("loss"))) for line in lines)
    further = record["steps"] > last or (last < steps and record["status"] == "success")
    status: Literal["success", "paused", "diverged"] = "paused" if further else record["status"]
    seconds = max((line.get("seconds") or 0.0 for line in lines), default=0.0)
    return Look(run.path.name, Observed(settings, status, curve), min(record["steps"], last) / steps, seconds)


def share_of(step: int, steps: int) -> float:
    """The share of the steps that a step is the nearest to: .3 for step 8 of 25; a tenth before others."""
    if step >= steps:
        return 1.0
    for parts in (10, 20, 100):
        share = round(step / steps * parts) / parts
        if 0 < share < 1 and pause_step(share, steps) == step:
            return share
    return step / steps


def _validated(directory: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of metrics.jsonl with scores on validation."""
    path = directory / MetricsFile.FILE
    try:
        lines = read_regular(path).split(b"\n")[:-1]
    except FileNotFoundError as error:
        raise UserError(f"{path} is gone; remove {directory}, and the same command trains the run again") from error
    except OSError as error:
        raise unreadable(path, error) from error
    for number, text in enumerate(lines, start=1):
        line = parsed(text, f"{path}, line {number}", directory)
        if line["split"] == "validation":
            yield line


def _finite(loss: float | None) -> float:
    return math.inf if loss is None else loss
