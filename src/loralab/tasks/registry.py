"""Table of task sources: for each, the names of its tasks and the functions that identify and read them."""

import difflib
import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from loralab.errors import UserError
from loralab.tasks import glue, hub_generation, local_files, local_labels, local_pairs, packaged, sql
from loralab.tasks.settings import TaskSettings
from loralab.tasks.splits import RawTask, subset

__all__ = ["GENERATION", "NAMES", "SOURCES", "TaskSource", "columns", "identity", "read", "read_once", "train_rows"]

# Tasks kept per process. A sweep alternates between at most two, since its longest runs come first.
KEPT = 2


Columns = tuple[tuple[str, ...], str]


@dataclass(frozen=True)
class TaskSource:
    """A source of tasks.

    `identity` returns the identity of a task's data: fingerprints of its files, or a hub commit. Its second argument is
    a directory for file digests. It imports nothing heavy. `uses` names the settings that the source uses besides the
    task's name and row counts; any other setting raises UserError. The splits of a source that `generates` are Pairs.
    `train_rows` returns the size of the training split, where that is known without reading the data; `columns` the
    names that a file of its rows has for the texts and the label.
    """

    names: tuple[str, ...]
    identity: Callable[[TaskSettings, Path | None], dict[str, str]]
    read: Callable[[TaskSettings], RawTask[Any]]
    uses: frozenset[str]
    generates: bool
    train_rows: Callable[[TaskSettings], int] | None = None
    columns: Callable[[TaskSettings], Columns] = lambda _: (("text",), "label")


_OWN_FILES = frozenset({"files", "text", "label", "kind", "validation_share", "test_share", "split_seed"})

SOURCES = (
    TaskSource(
        packaged.names(generates=False), packaged.identity, packaged.read,
        uses=frozenset(), generates=False, train_rows=packaged.train_rows,
    ),
    TaskSource(
        packaged.names(generates=True), packaged.identity, packaged.read,
        uses=frozenset(), generates=True, train_rows=packaged.train_rows,
    ),
    TaskSource(
        ("sql",), sql.identity, sql.read,
        uses=frozenset({"split_seed"}), generates=True, train_rows=lambda _: sql.SIZES["train"],
    ),
    TaskSource(
        tuple(glue.GLUE), glue.identity, glue.read,
        uses=frozenset({"revision"}), generates=False, columns=glue.columns,
    ),
    TaskSource(
        tuple(hub_generation.HUB_PAIRS), hub_generation.identity, hub_generation.read,
        uses=frozenset({"revision"}), generates=True, columns=hub_generation.columns,
    ),
    TaskSource(
        ("local",), local_files.identity, local_labels.read,
        uses=_OWN_FILES, generates=False, columns=local_files.columns,
    ),
    TaskSource(
        ("pairs",), local_files.identity, local_pairs.read,
        uses=_OWN_FILES, generates=True, columns=local_files.columns,
    ),
)  # fmt: skip
_SOURCE_OF = {name: source for source in SOURCES for name in source.names}
NAMES: tuple[str, ...] = tuple(_SOURCE_OF)
GENERATION: tuple[str, ...] = tuple(name for name, source in _SOURCE_OF.items() if source.generates)


def identity(settings: TaskSettings, *, cache: Path | None) -> dict[str, str]:
    """The identity of the task's data: fingerprints of its files, or the hub commit. Imports nothing heavy.

    `read` depends on this and on the settings only. `cache` is a directory for file digests.
    """
    return _source(settings).identity(settings, cache)


def read(settings: TaskSettings) -> RawTask[Any]:
    """The task's texts and labels (generation: its pairs) in their splits."""
    return subset(_source(settings).read(settings), settings.train_rows, settings.eval_rows)


@functools.lru_cache(maxsize=KEPT)
def read_once(settings: TaskSettings, data: str) -> RawTask[Any]:  # noqa: ARG001  # data: part of the cache's key
    """`read`, cached for later runs of the process; data: the identity of the task's data."""
    return read(settings)


def train_rows(settings: TaskSettings, data: str) -> int:
    """The number of training examples; data: the identity of the task's data. Reads them only where it must."""
    known = _source(settings).train_rows
    if settings.train_rows is not None:
        return settings.train_rows
    return known(settings) if known is not None else _counted(replace(settings, eval_rows=None), data)


@functools.lru_cache(maxsize=1000)  # a sweep plans thousands of runs
def _counted(settings: TaskSettings, data: str) -> int:
    return len(read_once(settings, data).splits["train"])


def columns(settings: TaskSettings) -> Columns:
    """The names of the columns for the texts and the label in a file of the task's rows."""
    return _source(settings).columns(settings)


def _source(settings: TaskSettings) -> TaskSource:
    """The source of the task; raises UserError for an unknown name, and for a setting that the source does not use."""
    name = settings.name
    if name not in _SOURCE_OF:
        near = difflib.get_close_matches(name, NAMES, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise UserError(f"task.name: got '{name}'; allowed: {', '.join(NAMES)}{hint}")
    source = _SOURCE_OF[name]
    if "revision" in source.uses and settings.revision is None:
        raise UserError(f"task.revision: got null; {name} comes from the hub, so name a branch or a commit, e.g. main")
    if "revision" not in source.uses and settings.revision is not None:
        raise UserError(
            f"task.revision: got '{settings.revision}', but {name} does not come from the hub; leave it null"
        )
    for key, value in _given(settings).items():
        if key.partition(".")[0] not in source.uses:
            raise UserError(
                f"task.{key}: got {value}, but {name} has its own data and splits; "
                f"leave it null, or use task=local (for pairs of texts: task=pairs) for your own files"
            )
    return source


def _given(settings: TaskSettings) -> dict[str, object]:
    """{key of the config's `task` node: value} of the settings for the user's files that are set."""
    values = {
        "text": list(settings.text) or None,
        "label": settings.label,
        "kind": settings.kind,
        "validation_share": settings.validation_share,
        "test_share": settings.test_share,
        "split_seed": settings.split_seed,
    }
    files: dict[str, object] = {f"files.{part}": file for part, file in settings.files.given().items()}
    return files | {key: value for key, value in values.items() if value is not None}
