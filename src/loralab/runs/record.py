"""The record of a run, or of a pretraining, from its beginning to its end; and the record of a run that failed."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import yaml

from loralab import device
from loralab.config.keys import config_values
from loralab.runs.plan import Plan
from loralab.store import provenance
from loralab.store.record import Ending, FailedRecord, Memory, Origin, RunEnding, RunOrigin
from loralab.store.run_directory import final_status

if TYPE_CHECKING:
    import torch

    from loralab.runs.prepare import Prepared
    from loralab.training.session import Session

__all__ = ["as_yaml", "ending", "fail", "header", "origin", "run_ending"]


def origin(*, name: str, config: dict[str, Any], identity: dict[str, Any], started: float) -> Origin:
    """What is trained, with the code's version; config: as `config_values` gives it."""
    return {
        "name": name,
        "config": config,
        "identity": identity,
        "git": provenance.code_version(Path(config["store"])),
        "versions": provenance.versions(),
        "started": started,
    }


def header(planned: Plan, started: float) -> RunOrigin:
    """What a run's record begins with: which run it is, its config, the code's version, and when it started."""
    begun = origin(
        name=planned.directory.path.name,
        config=config_values(planned.config),
        identity=planned.identity,
        started=started,
    )
    return {"run_id": planned.directory.hash, **begun}


def ending(
    session: "Session",
    *,
    metrics: dict[str, Any],
    groups: list[dict[str, Any]],
    parameters: dict[str, int],
    set_up_seconds: float,
    place: "torch.device",
    threads: int,
) -> Ending:
    """What a training came to, with what it cost: time, memory, and what it ran on."""
    progress = session.progress
    return {
        "status": final_status(diverged=progress.diverged),
        "error": None,
        "metrics": metrics,
        "steps": progress.step,
        "groups": groups,
        "parameters": parameters,
        "timing": {
            **progress.timing(),
            "set_up_seconds": set_up_seconds,
            "steps_executed": session.journal.executed,
        },
        "memory": cast(Memory, device.memory_peak(place)),
        "device": device.describe(place),
        "threads": threads,
    }


def run_ending(prepared: "Prepared", session: "Session", metrics: dict[str, Any]) -> RunEnding:
    """The same of a run."""
    model, head = prepared.model, prepared.backbone.head
    parameters = {
        "total": model.parameters(),
        "trainable": prepared.trained.weights.values(),
        "head": [p for name in head for p in model.get_submodule(name).parameters()],
    }
    end = ending(
        session,
        metrics=metrics,
        groups=prepared.groups,
        parameters={name: sum(p.numel() for p in some) for name, some in parameters.items()},
        set_up_seconds=prepared.seconds,
        place=prepared.planned.device,
        threads=prepared.threads,
    )
    return {**end, "ranks": prepared.ranks.count, "rows": prepared.objective.rows()}


def fail(planned: Plan, error: str, *, started: float) -> None:
    """Writes the record of a run that ended without one, as `failed` with this text; the next attempt goes on from it.

    Call it only while this process holds the run, whether it trained the run or another process that died.
    """
    planned.directory.begin(as_yaml(planned.config))
    record: FailedRecord = {
        **header(planned, started), "status": "failed", "error": error, "metrics": None, "ended": time.time(),
    }  # fmt: skip
    planned.directory.finish(record)


def as_yaml(config: Any) -> str:
    """config.yaml's text, of a run's configuration or a pretraining's."""
    return yaml.safe_dump(config_values(config), sort_keys=False)
