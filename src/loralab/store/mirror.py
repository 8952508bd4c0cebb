"""What every tracker's mirror of a run is told, and the interface of the four of them: one file per tracker."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

__all__ = ["Ending", "Mirror", "Page", "Place", "file_name", "flat"]


@dataclass(frozen=True)
class Page:
    """A run as a tracker shows it: what it is called, its config, and where it belongs.

    run_id: its hash; name: what people call it; directory: of the run, in `store`; config: nested, with `code` (commit)
    and `parameters` (numbers of them) beside the settings; entity: W&B's.
    """

    run_id: str
    name: str
    directory: Path
    store: Path
    config: dict[str, Any]
    project: str
    entity: str | None
    group: str | None
    tags: list[str]
    mode: str


@dataclass(frozen=True)
class Place:
    """Where a run is mirrored and how to see it, in one line; every: the same for all runs of its sweep."""

    run: str
    every: str


@dataclass(frozen=True)
class Ending:
    """How a run ended: its record's status, or failed or interrupted; metrics: as in record.json, if it came so far."""

    status: str
    metrics: dict[str, Any]

    def scores(self) -> Iterator[tuple[int, dict[str, float]]]:
        """The scores of each split with their step, by the names of a study's table; `best/`: of the best step."""
        for split, scores in self.metrics.items():
            if split == "primary":
                continue
            for prefix, found in (("", scores["last"]), ("best/", scores["best"])):
                values = {name: value for name, value in (found or {}).items() if value is not None}
                if values:
                    step = int(values.pop("step"))
                    yield step, {f"{prefix}{split}/{name}": value for name, value in values.items()}


class Mirror(Protocol):
    """A tracker's page of one run. Any method may raise: `trackers.Mirrored` then goes on without the tracker."""

    def start(self, *, resumed: bool) -> Place:
        """Opens the page; a resumed run's is continued."""

    def there(self) -> set[tuple[str, int]] | None:
        """The names and steps of the numbers that the opened page holds; None: only new lines are to be sent."""

    def log(self, step: int, values: dict[str, float], at: float) -> None:
        """Sends numbers by name; at: when they were measured, in seconds since the epoch without interruptions."""

    def finish(self, ending: Ending) -> None:
        """Sends the status, and closes the page; the final scores are logged before, unless `there` gave None."""


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The config by dotted key, as settings are written; an empty mapping is a value."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def file_name(text: str) -> str:
    """The text as the name of a folder."""
    return re.sub(r"[^\w.-]", "_", text).lstrip(".") or "_"
