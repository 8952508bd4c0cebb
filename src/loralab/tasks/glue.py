"""Eight GLUE tasks, from the hub's data set `nyu-mll/glue` (parquet) or from its local cache.

The labels of GLUE's test sets are hidden. Therefore `test` is the official development set (MNLI: the matched one, and
the mismatched one as `test_mismatched`), and `validation` is a fixed random part of the training set: a tenth, at most
2,000 rows.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loralab.tasks import hub
from loralab.tasks.settings import TaskSettings
from loralab.tasks.splits import Labels, RawTask, Texts, hold_out

__all__ = ["GLUE", "columns", "identity", "read"]

_REPOSITORY = "nyu-mll/glue"
_SPLIT_SEED = 0  # seed of the permutation for validation; not the run's seed
_VALIDATION_ROWS = 2_000  # standard error of an accuracy near .9: .7%


@dataclass(frozen=True)
class _Glue:
    """One task: text columns, class names in id order (None: a score), and metrics, the primary one first."""

    columns: tuple[str, ...]
    labels: tuple[str, ...] | None
    metrics: tuple[str, ...]
    tests: tuple[tuple[str, str], ...] = (("test", "validation"),)  # split, name of its file


GLUE: dict[str, _Glue] = {
    "cola": _Glue(("sentence",), ("unacceptable", "acceptable"), ("matthews",)),
    "sst2": _Glue(("sentence",), ("negative", "positive"), ("accuracy",)),
    "mrpc": _Glue(("sentence1", "sentence2"), ("not_equivalent", "equivalent"), ("accuracy", "f1")),
    "stsb": _Glue(("sentence1", "sentence2"), None, ("pearson", "spearman")),
    "qqp": _Glue(("question1", "question2"), ("not_duplicate", "duplicate"), ("accuracy", "f1")),
    "mnli": _Glue(
        ("premise", "hypothesis"),
        ("entailment", "neutral", "contradiction"),
        ("accuracy",),
        (("test", "validation_matched"), ("test_mismatched", "validation_mismatched")),
    ),
    "qnli": _Glue(("question", "sentence"), ("entailment", "not_entailment"), ("accuracy",)),
    "rte": _Glue(("sentence1", "sentence2"), ("entailment", "not_entailment"), ("accuracy",)),
}


def identity(settings: TaskSettings, _cache: Path | None) -> dict[str, str]:
    """The commit of the data set that `revision` names: from the hub if it answers, else from the local cache."""
    assert settings.revision is not None
    return {"data": hub.commit(_REPOSITORY, settings.revision, asked_by=f"task={settings.name}")}


def read(settings: TaskSettings) -> RawTask:
    """The task at `revision`; raises UserError if neither the hub nor its cache has it."""
    name = settings.name
    task = GLUE[name]
    files = {part: f"{name}/{file}-00000-of-00001.parquet" for part, file in (("train", "train"), *task.tests)}
    assert settings.revision is not None
    paths = hub.fetch(_REPOSITORY, settings.revision, tuple(files.values()), asked_by=f"task={name}")
    official = {part: _texts(task, paths[file]) for part, file in files.items()}
    train = official.pop("train")
    held_out = min(_VALIDATION_ROWS, len(train) // 10)
    validation, rest = hold_out(train.texts, [held_out], _SPLIT_SEED)
    return RawTask(
        name=name,
        kind="regression" if task.labels is None else "classification",
        labels=task.labels,
        splits={"train": train.take(rest), "validation": train.take(validation), **official},
        metrics=task.metrics,
    )


def columns(settings: TaskSettings) -> tuple[tuple[str, ...], str]:
    """The columns of the texts and the label."""
    return GLUE[settings.name].columns, "label"


def _texts(task: _Glue, path: Path) -> Texts:
    import datasets

    bars = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    table = datasets.Dataset.from_parquet(str(path), columns=[*task.columns, "label"], keep_in_memory=True)
    if not bars:
        datasets.enable_progress_bars()
    columns: dict[str, list[Any]] = table.to_dict()
    # QQP has a few empty questions, null in some conversions; GLUE includes these pairs
    texts = [tuple(text or "" for text in row) for row in zip(*(columns[name] for name in task.columns), strict=True)]
    labels: Labels = (
        np.array(columns["label"], dtype=np.float32)
        if task.labels is None
        else np.array(columns["label"], dtype=np.int64)
    )
    return Texts(texts=texts, labels=labels, rows=np.arange(len(texts), dtype=np.int64))
