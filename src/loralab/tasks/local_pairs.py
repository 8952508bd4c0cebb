"""task=pairs: contexts and targets from the user's own csv, tsv, json lines or parquet files, checked row by row.

A row's context is its cell in the column of task.text, or two cells joined by a line break; task.label names the
target's column.
"""

from collections.abc import Sequence

import numpy as np

from loralab.errors import UserError
from loralab.tasks import local_files
from loralab.tasks.settings import TaskSettings
from loralab.tasks.splits import Pairs, RawTask
from loralab.tasks.table_files import Table

__all__ = ["pairs", "read"]


def read(settings: TaskSettings) -> RawTask[Pairs]:
    """The task in the user's files; a split without a file is its share of the training file, cut by `split_seed`.

    Rows with the same context stay in one split. Raises UserError, with file and line, for any invalid row.
    """
    if settings.kind is not None:
        raise UserError(
            f"task.kind: got {settings.kind}; task=pairs generates text, so leave it null, or use task=local"
        )
    text, label = local_files.columns(settings)
    splits = {part: pairs(table, text, label) for part, table in local_files.tables(settings).items()}
    contexts = [(context,) for context in splits["train"].contexts]
    splits = local_files.with_shares(splits, contexts, settings)
    return RawTask(settings.name, "generation", None, splits, ("exact_match",))


def pairs(table: Table, text: Sequence[str], label: str) -> Pairs:
    """The rows of a file; text, label: the columns of the context and of the target."""
    cells = zip(*(_texts(table, column) for column in text), strict=True)
    return Pairs(
        contexts=["\n".join(row) for row in cells],
        references=[(target,) for target in _texts(table, label)],
        rows=np.arange(len(table), dtype=np.int64),
    )


def _texts(table: Table, column: str) -> list[str]:
    """A column's texts without surrounding whitespace, with numbers converted to text."""
    return [text.strip() for text in local_files.texts(table, column, numbers=True)]
