"""Generation tasks from the Hugging Face hub, or from its local cache: GSM8K, SAMSum and E2E.

datasets 5 does not run loading scripts, so a task lists the data files. E2E's repository has only a script; the hub has
its rows as parquet on the branch refs/convert/parquet.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loralab.errors import UserError
from loralab.tasks import hub
from loralab.tasks.settings import TaskSettings
from loralab.tasks.splits import Pairs, RawTask, hold_out
from loralab.tasks.table_files import read_table

__all__ = ["HUB_PAIRS", "columns", "identity", "read"]

_SPLIT_SEED = 0  # seed of the permutation for validation, if a data set has none; not the run's seed
_VALIDATION_ROWS = 1_000


@dataclass(frozen=True)
class _HubPairs:
    """One task: repository, file of each split, columns, and metrics, the primary one first."""

    repository: str
    files: dict[str, str]
    context: str
    target: str
    metrics: tuple[str, ...]


HUB_PAIRS: dict[str, _HubPairs] = {
    "gsm8k": _HubPairs(
        repository="openai/gsm8k",
        files={part: f"main/{part}-00000-of-00001.parquet" for part in ("train", "test")},
        context="question",
        target="answer",
        metrics=("number_match",),
    ),
    "samsum": _HubPairs(
        repository="knkarthick/samsum",
        files={part: f"{part}.csv" for part in ("train", "validation", "test")},
        context="dialogue",
        target="summary",
        metrics=("rougeL", "rouge1", "rouge2"),
    ),
    "e2e": _HubPairs(
        repository="tuetschek/e2e_nlg",
        files={part: f"default/{part}/0000.parquet" for part in ("train", "validation", "test")},
        context="meaning_representation",
        target="human_reference",
        metrics=("bleu", "chrf", "rougeL"),
    ),
}


def identity(settings: TaskSettings, _cache: Path | None) -> dict[str, str]:
    """The commit of the data set that `revision` names: from the hub if it answers, else from the local cache."""
    assert settings.revision is not None
    repository = HUB_PAIRS[settings.name].repository
    return {"data": hub.commit(repository, settings.revision, asked_by=f"task={settings.name}")}


def read(settings: TaskSettings) -> RawTask[Pairs]:
    """The task at `revision`; raises UserError if neither the hub nor its cache has its files.

    Training rows with the same context stay separate; in the other splits they become one row with several references.
    """
    name = settings.name
    task = HUB_PAIRS[name]
    assert settings.revision is not None
    try:
        paths = hub.fetch(task.repository, settings.revision, tuple(task.files.values()), asked_by=f"task={name}")
    except UserError as error:
        raise UserError(f"{error}; or put its pairs into your own files (csv, jsonl, parquet) for task=pairs") from None
    splits = {part: _pairs(task, paths[file]) for part, file in task.files.items()}
    if "validation" not in splits:
        train = splits["train"]
        size = min(_VALIDATION_ROWS, len(train) // 10)
        validation, rest = hold_out([(context,) for context in train.contexts], [size], _SPLIT_SEED)
        splits |= {"train": train.take(rest), "validation": train.take(validation)}
    order = {part: splits[part] if part == "train" else _grouped(splits[part]) for part in _PARTS}
    return RawTask(name, "generation", None, order, task.metrics)


def columns(settings: TaskSettings) -> tuple[tuple[str, ...], str]:
    """The columns of the context and the target."""
    return (HUB_PAIRS[settings.name].context,), HUB_PAIRS[settings.name].target


_PARTS = ("train", "validation", "test")


def _pairs(task: _HubPairs, path: Path) -> Pairs:
    """The rows of a file whose context and target are not empty (SAMSum has an empty dialogue)."""
    table = read_table(path, {task.context: "task.name", task.target: "task.name"})
    cells = zip(table.columns[task.context], table.columns[task.target], strict=True)
    rows = [(i, context.strip(), target.strip()) for i, (context, target) in enumerate(cells) if context and target]
    kept = [row for row in rows if row[1] and row[2]]
    return Pairs(
        contexts=[context for _, context, _ in kept],
        references=[(target,) for _, _, target in kept],
        rows=np.array([i for i, _, _ in kept], dtype=np.int64),
    )


def _grouped(pairs: Pairs) -> Pairs:
    """One row per context: the first of its rows, with the references of all of them."""
    rows_of: dict[str, list[int]] = {}
    for row, context in enumerate(pairs.contexts):
        rows_of.setdefault(context, []).append(row)
    return Pairs(
        contexts=list(rows_of),
        references=[tuple(pairs.references[row][0] for row in rows) for rows in rows_of.values()],
        rows=pairs.rows[[rows[0] for rows in rows_of.values()]],
    )
