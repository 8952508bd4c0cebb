"""The grids that the tests of jobs and of the second stage share."""

from collections.abc import Sequence
from typing import Any

from loralab.config.overrides import settings
from loralab.sweeps.grid import Spec

RATIO: dict[str, Any] = {
    "params": {"task": ["rotten_tomatoes", "trec"], "seed": "range(3)", "lora.rank,lora.alpha": [[1, 1], [8, 16]]},
    "arms": [
        {"lora.ratio": 1, "optim.lr": "logspace(2e-4,8e-3,6)"},
        {"lora.ratio": 16, "optim.lr": "logspace(5e-5,2e-3,6)", "optim.clip": None},
    ],
    "confirm": {
        "by": ["task", "lora.ratio"],
        "select": "validation/loss",
        "params": {"seed": "range(100,105)"},
    },
    "smoke": {"model": "tiny", "task": "trec", "train.steps": 4, "seed": [0, 1], "optim.lr": [1e-3]},
}
"""Two arms with windows of their own, a pair that varies together, fresh seeds and a smoke size: 144 jobs."""


def ratio(**parts: Any) -> Spec:
    return Spec.from_mapping({**RATIO, **parts})


def grid(params: dict[str, Any], *arms: dict[str, Any]) -> Spec:
    return Spec.from_mapping({"params": params, "arms": list(arms)})


def column(found: Sequence[tuple[str, ...]], name: str) -> list[Any]:
    """The distinct values of one key among the jobs, None where a job does not have it."""
    every = [settings(job).get(name) for job in found]
    return [value for i, value in enumerate(every) if value not in every[:i]]
