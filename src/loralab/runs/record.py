"""The parts of a record, of a run or a pretraining, and the record of a failed run."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import yaml

from loralab import device
from loralab.backbones.quantise import numbers_in_codes
from loralab.config.keys import config_values
from loralab.runs.outputs import as_recorded
from loralab.runs.plan import Plan
from loralab.store import provenance
from loralab.store.record import (
    CodeVersion,
    FailedRecord,
    Group,
    Memory,
    Origin,
    Parameters,
    Results,
    RunOrigin,
    RunResults,
    SplitScores,
    Timing,
)

if TYPE_CHECKING:
    import torch

    from loralab.runs.prepare import Prepared
    from loralab.training.session import Session

__all__ = ["as_yaml", "fail", "header", "origin", "parameters_of", "results", "run_results"]


def origin(*, name: str, config: dict[str, Any], identity: dict[str, Any], started: float) -> Origin:
    """Name, config, identity, code version and start; config: as `config_values` returns it."""
    return {
        "name": name,
        "config": config,
        "identity": identity,
        "git": cast(CodeVersion, provenance.code_version(Path(config["store"]))),
        "versions": provenance.versions(),
        "started": started,
    }


def header(planned: Plan, started: float) -> RunOrigin:
    """The first part of a run's record: id, config, identity, code version and start."""
    begun = origin(
        name=planned.directory.path.name,
        config=config_values(planned.config),
        identity=planned.identity,
        started=started,
    )
    return {"run_id": planned.directory.hash, **begun}


def results(
    session: "Session",
    *,
    metrics: dict[str, Any],
    groups: list[dict[str, Any]],
    parameters: dict[str, int],
    set_up_seconds: float,
    place: "torch.device",
    threads: int,
) -> Results:
    """The results of a training, without its status: metrics, parameters, time, memory and device."""
    progress = session.progress
    return {
        "error": None,
        "metrics": metrics,
        "steps": progress.step,
        "groups": cast(list[Group], groups),
        "parameters": cast(Parameters, parameters),
        "timing": cast(
            Timing,
            {
                **progress.timing(),
                "set_up_seconds": set_up_seconds,
                "steps_executed": session.journal.executed,
            },
        ),
        "memory": cast(Memory, device.memory_peak(place)),
        "device": device.describe(place),
        "threads": threads,
    }


def run_results(prepared: "Prepared", session: "Session", scores: dict[str, SplitScores]) -> RunResults:
    """`results` of a run, with the scores of each split, backbone, outputs, ranks, and the examples of each split."""
    found = results(
        session,
        metrics={"primary": prepared.objective.metric, **scores},
        groups=prepared.groups,
        parameters=parameters_of(prepared),
        set_up_seconds=prepared.seconds,
        place=prepared.planned.device,
        threads=prepared.threads,
    )
    source = prepared.backbone.source
    return {
        **found,
        "backbone": {"origin": source.origin, "family": source.family, "width": source.width},
        "outputs": as_recorded(prepared.objective.task),
        "ranks": prepared.ranks.count,
        "packed": session.progress.packed,
        "rows": prepared.objective.rows(),
    }


def parameters_of(prepared: "Prepared") -> dict[str, int]:
    """Numbers of parameters: total, trainable, and of the head."""
    model = prepared.model
    parts = {
        "total": model.parameters(),
        "trainable": prepared.trained.weights.values(),
        "head": [p for name in prepared.backbone.head for p in model.get_submodule(name).parameters()],
    }
    counts = {name: sum(p.numel() for p in some) for name, some in parts.items()}
    counts["total"] += numbers_in_codes(model)
    return counts


def fail(planned: Plan, error: str, *, started: float) -> None:
    """Writes a `failed` record with this error text, for a run that ended in an exception or whose process died.

    The next attempt resumes from the run's checkpoint. Call it only while this process holds the run.
    """
    planned.directory.begin(as_yaml(planned.config))
    record: FailedRecord = {
        **header(planned, started), "status": "failed", "error": error, "metrics": None, "ended": time.time(),
    }  # fmt: skip
    planned.directory.finish(record)


def as_yaml(config: Any) -> str:
    """The text of config.yaml, for a run or a pretraining."""
    return yaml.safe_dump(config_values(config), sort_keys=False)
