"""The user's own files, for task=local and task=pairs: paths, columns, cells of text, and splits without a file."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loralab.errors import UserError
from loralab.files import fingerprint
from loralab.tasks.splits import Rows, hold_out
from loralab.tasks.table_files import Table, existing

__all__ = ["columns", "identity", "is_empty", "paths", "texts", "with_shares"]

_PARTS = ("train", "validation", "test")


def identity(task: str, files: Mapping[str, str | None], *, cache: Path | None) -> dict[str, str]:
    """The fingerprint of each file given."""
    return {part: fingerprint([path], cache=cache) for part, path in paths(task, files).items()}


def paths(task: str, files: Mapping[str, str | None]) -> dict[str, Path]:
    """The files given, by their split; `task` names the task that needs one for training at least."""
    if files["train"] is None:
        raise UserError(f"task.files.train: task={task} needs a training file, e.g. task.files.train=reviews.csv")
    given = [(part, files[part]) for part in _PARTS]
    return {part: existing(f"task.files.{part}", path) for part, path in given if path is not None}


def columns(text: Sequence[str] | None, label: str | None) -> dict[str, str]:
    """{column: the setting that asks for it}, of task.text's one or two columns and task.label's."""
    if text is None or len(text) not in (1, 2) or len(set(text)) != len(text):
        got = "null" if text is None else f"[{', '.join(text)}]"
        raise UserError(f"task.text: got {got}; allowed: one or two text columns, e.g. task.text=[sentence]")
    if label is None or label in text:
        raise UserError(
            f"task.label: got {'null' if label is None else label}; allowed: a column that is not in task.text"
        )
    return dict.fromkeys(text, "task.text") | {label: "task.label"}


def is_empty(cell: Any) -> bool:
    """Whether a cell is null, NaN or blank."""
    blank = isinstance(cell, str) and not cell.strip()
    return blank or cell is None or (isinstance(cell, float) and math.isnan(cell))


def texts(table: Table, column: str, *, numbers: bool = False) -> list[str]:
    """A column's cells as they are; with `numbers` those count as text, as they are written.

    Raises UserError, with file and line, for a cell that is empty, is no text, or cannot be written as UTF-8.
    """
    kinds: tuple[type, ...] = (str, int, float) if numbers else (str,)
    found = []
    for where, cell in zip(table.where, table.columns[column], strict=True):
        if is_empty(cell):
            raise UserError(f"{table.path}, {where}: column '{column}' is empty; every row needs its text")
        if not isinstance(cell, kinds) or isinstance(cell, bool):
            raise UserError(f"{table.path}, {where}: column '{column}' holds {type(cell).__name__} {cell!r}, not text")
        text = str(cell)
        try:
            text.encode()
        except UnicodeEncodeError:
            half = f"{table.path}, {where}: column '{column}' holds half a surrogate pair, which is no text"
            raise UserError(half) from None
        found.append(text)
    return found


def with_shares(
    splits: dict[str, Rows], together: Sequence[tuple[str, ...]], shares: Mapping[str, float | None], seed: int | None
) -> dict[str, Rows]:
    """train, validation and test: each that `splits` lacks is its share of the training rows, cut by `seed`.

    together: of every training row its texts; rows with the same ones stay in one split.
    """
    missing: dict[str, float | None] = {part: share for part, share in shares.items() if part not in splits}
    if not missing:
        return splits
    asked = ", ".join([f"task.{part}_share={share}" for part, share in missing.items()])
    for part, share in missing.items():
        if share is None or not 0 < share < 1:
            raise UserError(f"task.{part}_share: got {share}; without task.files.{part} it must be above 0 and below 1")
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
