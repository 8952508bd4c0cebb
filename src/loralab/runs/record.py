"""What every record begins with, and the record of a run that failed; for who trains runs and who watches over them."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from loralab.config.schema import Config
from loralab.runs.plan import Plan
from loralab.store import provenance

__all__ = ["as_yaml", "fail", "header"]


def header(planned: Plan, started: float) -> dict[str, Any]:
    """Which run it is, its config, the code's version, and when it started (seconds since the epoch)."""
    return {
        "run_id": planned.directory.hash,
        "name": planned.directory.path.name,
        "config": asdict(planned.config),
        "identity": planned.identity,
        "git": provenance.code_version(Path(planned.config.store)),
        "versions": provenance.versions(),
        "started": started,
    }


def fail(planned: Plan, error: str, *, started: float) -> None:
    """Writes the record of a run that ended without one, as `failed` with this text; the next attempt goes on from it.

    For who holds the run, in a process of its own or for one that died.
    """
    planned.directory.begin(as_yaml(planned.config))
    failure = {"status": "failed", "error": error, "metrics": None, "ended": time.time()}
    planned.directory.finish(header(planned, started) | failure)


def as_yaml(config: Config) -> str:
    """config.yaml's text."""
    return yaml.safe_dump(asdict(config), sort_keys=False)
