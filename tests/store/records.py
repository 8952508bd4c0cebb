"""Whole records for tests of what reads them."""

from typing import Any

ORIGIN: dict[str, Any] = {
    "run_id": "0123456789",
    "name": "tiny-x-0123456789",
    "config": {},
    "identity": {},
    "git": {"commit": None, "diff": None},
    "versions": {"python": "3", "torch": "2", "transformers": "5"},
    "started": 0.0,
    "ended": 1.0,
}
SCORES = {"step": 3, "accuracy": 0.5, "loss": None}


def record(status: str, **changes: Any) -> dict[str, Any]:
    """A record of this status, with other values where they are given."""
    if status == "failed":
        return ORIGIN | {"status": status, "error": "RuntimeError: out of luck", "metrics": None} | changes
    seconds = ("seconds", "training_seconds", "evaluation_seconds", "set_up_seconds", "steps_executed")
    return {
        **ORIGIN,
        "status": status,
        "error": None,
        "metrics": {"primary": "accuracy", "validation": {"best": SCORES, "last": SCORES}},
        "steps": 3,
        "groups": [],
        "parameters": {"total": 2, "trainable": 1},
        "timing": dict.fromkeys((*seconds, "steps_per_second", "tokens_per_second", "tokens"), 1.0),
        "memory": {"host_bytes": 1, "device_bytes": None},
        "device": "cpu",
        "threads": 1,
        "rows": {"train": 8, "validation": 8},
        **changes,
    }
