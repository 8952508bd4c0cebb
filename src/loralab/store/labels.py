"""A run's name and tags: what people call it. They are no part of its identity, and can be given again later."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loralab.files import read_regular, write_json
from loralab.store.strict_json import parse

__all__ = ["Labels", "label", "labels_of"]

FILE = "labels.json"


@dataclass(frozen=True)
class Labels:
    """`name=baseline tags=[a,b]`; without a name, a run goes by its directory's."""

    name: str | None = None
    tags: tuple[str, ...] = ()


def labels_of(run: Path) -> Labels:
    """The labels in a run's directory; none where it has none, or where the file is damaged."""
    try:
        found: Any = parse(read_regular(run / FILE))
        name, tags = found["name"], found["tags"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return Labels()
    if not isinstance(name, str | None) or not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        return Labels()
    return Labels(name, tuple(tags))


def label(run: Path, labels: Labels) -> Labels:
    """Writes the labels into a run's directory: a name replaces the one that is there, tags are added to those there.

    Returns what the run has then. Writes nothing where nothing changes.
    """
    there = labels_of(run)
    new = Labels(labels.name or there.name, tuple(dict.fromkeys([*there.tags, *labels.tags])))
    if new != there:
        write_json(run / FILE, {"name": new.name, "tags": list(new.tags)})
    return new
