"""task=pairs: contexts and targets from the user's own csv, tsv, json lines or parquet files, checked row by row.

A row's context is its column of task.text, or two joined by a line break; task.label names the target's column.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from loralab.errors import UserError
from loralab.tasks import local_files
from loralab.tasks.splits import Kind, Pairs, RawTask
from loralab.tasks.table_files import Table, read_table

__all__ = ["identity", "read"]


def identity(files: Mapping[str, str | None], *, cache: Path | None) -> dict[str, str]:
    """The fingerprint of each file given."""
    return local_files.identity("pairs", files, cache=cache)


def read(
    *,
    files: Mapping[str, str | None],
    text: Sequence[str] | None,
    label: str | None,
    kind: Kind | None,
    validation_share: float | None,
    test_share: float | None,
    split_seed: int | None,
) -> RawTask[Pairs]:
    """The task in the user's files; a split without a file is its share of the training file, cut by `split_seed`.

    Rows with the same context stay in one split. Raises UserError for anything wrong, with file and line.
    """
    if kind is not None:
        raise UserError(f"task.kind: got {kind}; task=pairs generates text, so leave it null, or use task=local")
    columns = local_files.columns(text, label)
    assert text is not None and label is not None
    splits = {}
    for part, path in local_files.paths("pairs", files).items():
        table = read_table(path, columns)
        cells = zip(*(_texts(table, column) for column in text), strict=True)
        splits[part] = Pairs(
            contexts=["\n".join(row) for row in cells],
            references=[(target,) for target in _texts(table, label)],
            rows=np.arange(len(table), dtype=np.int64),
        )
    shares = {"validation": validation_share, "test": test_share}
    contexts = [(context,) for context in splits["train"].contexts]
    splits = local_files.with_shares(splits, contexts, shares, split_seed)
    return RawTask("pairs", "generation", None, splits, ("exact_match",))


def _texts(table: Table, column: str) -> list[str]:
    """A column's texts without the blanks around them, numbers as they are written."""
    return [text.strip() for text in local_files.texts(table, column, numbers=True)]
