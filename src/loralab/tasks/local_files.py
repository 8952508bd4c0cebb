"""The user's own files for task=local and task=pairs: paths, columns, text cells, and splits without a file."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loralab.errors import UserError
from loralab.files import fingerprint
from loralab.tasks.settings import TaskSettings
from loralab.tasks.splits import Rows, hold_out
from loralab.tasks.table_files import Table, existing, files_of, read_table
from loralab.text import shown

__all__ = ["columns", "encodable", "identity", "is_empty", "paths", "tables", "texts", "with_shares"]

_PARTS = ("train", "validation", "test")


def identity(settings: TaskSettings, cache: Path | None) -> dict[str, str]:
    """The fingerprint of each given file, by its split."""
    return {part: fingerprint(files_of(path), cache=cache) for part, path in paths(settings).items()}


def paths(settings: TaskSettings) -> dict[str, Path]:
    """The given files, by their split; a training file is required."""
    if settings.files.train is None:
        raise UserError(
            f"task.files.train: task={settings.name} needs a training file, e.g. task.files.train=reviews.csv"
        )
    return {part: existing(f"task.files.{part}", path) for part, path in settings.files.given().items()}


def columns(settings: TaskSettings) -> tuple[tuple[str, ...], str]:
    """The one or two columns of task.text, and the column of task.label."""
    text, label = settings.text, settings.label
    if len(text) not in (1, 2) or len(set(text)) != len(text):
        raise UserError(
            f"task.text: got [{', '.join(text)}]; allowed: one or two text columns, e.g. task.text=[sentence]"
        )
    if label is None or label in text:
        raise UserError(
            f"task.label: got {'null' if label is None else label}; allowed: a column that is not in task.text"
        )
    return text, label


def tables(settings: TaskSettings) -> dict[str, Table]:
    """The text and label columns of each file, by its split."""
    text, label = columns(settings)
    wanted = dict.fromkeys(text, "task.text") | {label: "task.label"}
    return {part: read_table(path, wanted) for part, path in paths(settings).items()}


def is_empty(cell: Any) -> bool:
    """Whether a cell is null, NaN or blank."""
    blank = isinstance(cell, str) and not cell.strip()
    return blank or cell is None or (isinstance(cell, float) and math.isnan(cell))


def texts(table: Table, column: str, *, numbers: bool = False) -> list[str]:
    """The cells of a column as text, unchanged; with `numbers`, numbers are converted to text.

    Raises UserError, with file and line, for a cell that is empty, is not text, or cannot be encoded as UTF-8.
    """
    kinds: tuple[type, ...] = (str, int, float) if numbers else (str,)
    found = []
    for where, cell in zip(table.where, table.columns[column], strict=True):
        if is_empty(cell):
            raise UserError(f"{table.path}, {where}: column '{column}' is empty; every row needs its text")
        if not isinstance(cell, kinds) or isinstance(cell, bool):
            held = f"{type(cell).__name__} {shown(repr(cell))}"
            raise UserError(f"{table.path}, {where}: column '{column}' holds {held}, not text")
        found.append(encodable(table, column, where, str(cell)))
    return found


def encodable(table: Table, column: str, where: str, text: str) -> str:
    """The text; raises UserError where it cannot be encoded as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        half = f"{table.path}, {where}: column '{column}' holds half a surrogate pair, which is not text"
        raise UserError(half) from None
    return text


def with_shares(
    splits: dict[str, Rows], together: Sequence[tuple[str, ...]], settings: TaskSettings
) -> dict[str, Rows]:
    """train, validation and test: one that `splits` lacks is its share of the training rows, cut by `split_seed`.

    together: the texts of every training row; rows with the same texts stay in one split.
    """
    shares = {"validation": settings.validation_share, "test": settings.test_share}
    missing: dict[str, float | None] = {part: share for part, share in shares.items() if part not in splits}
    if not missing:
        return splits
    asked = ", ".join([f"task.{part}_share={share}" for part, share in missing.items()])
    for part, share in missing.items():
        if share is None or not 0 < share < 1:
            raise UserError(f"task.{part}_share: got {share}; without task.files.{part} it must be above 0 and below 1")
    seed = settings.split_seed
    if seed is None:
        raise UserError("task.split_seed: got null; without all three files it must be a whole number")
    train = splits["train"]
    sizes = [round(share * len(train)) for share in missing.values() if share is not None]
    cut = dict(zip([*missing, "train"], hold_out(together, sizes, seed), strict=True))
    for part, rows in cut.items():
        if not len(rows):
            raise UserError(
                f"task.files.train: its {len(train)} rows ({len(set(together))} distinct texts) leave none for "
                f"{part} at {asked}; give more rows, or files"
            )
    return {part: train.take(cut[part]) if part in cut else splits[part] for part in _PARTS}
