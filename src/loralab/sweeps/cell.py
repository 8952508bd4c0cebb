"""A cell: one run that a sweep needs, trained or not."""

from dataclasses import dataclass
from typing import Any

__all__ = ["Cell"]


@dataclass(frozen=True)
class Cell:
    """One run of a sweep.

    overrides: what composes it, as the command line takes it; axes: its value on every axis that varies in the sweep,
    by dotted key (groups by name: `task`); stage: "grid", or "confirm" for a study's fresh seeds; run: the name of its
    directory under <store>/runs.
    """

    overrides: tuple[str, ...]
    axes: dict[str, Any]
    stage: str
    run: str
