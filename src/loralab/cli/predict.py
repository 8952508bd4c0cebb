"""`loralab predict`: the rows of a file, or of a pipe, with a run's predictions beside them, whatever their number."""

import argparse
import contextlib
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from loralab.cli.run_options import RUN
from loralab.errors import UserError
from loralab.text import count, printed, shown

if TYPE_CHECKING:
    from loralab.runs.predict import Row
    from loralab.tasks.row_blocks import Block, RowFile

__all__ = ["EXAMPLES", "add_options", "predict"]

EXAMPLES = (
    "loralab predict 47d00a88bf new.csv --to predicted.csv   the same file with the predictions beside its columns",
    "loralab predict 47d0 new.jsonl --text body | jq .prediction",
    "echo 'a fine film' | loralab predict 47d0 -             one text a line",
    "zcat new.csv.gz | loralab predict 47d0 - --format csv",
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `loralab predict`."""
    parser.add_argument("run", metavar="RUN", help=RUN)
    meaning = "csv, tsv, jsonl, parquet or txt (one text a line); labels are not needed; -: standard input"
    parser.add_argument("file", metavar="FILE", help=meaning)
    parser.add_argument("--to", type=Path, metavar="FILE", help="the output, in FILE's format (default: printed)")
    meaning = "a column of text, once for each text that the run reads (default: the names in its training data)"
    parser.add_argument("--text", action="append", metavar="COLUMN", help=meaning)
    formats = ("csv", "tsv", "jsonl", "txt")
    parser.add_argument("--format", choices=formats, help="of standard input (default: txt)")
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or mps (default: auto)")


def predict(given: argparse.Namespace) -> int:
    """Writes every row with its predictions; returns the exit status.

    A mistake in the file or its columns is found before the model is loaded. A row without a text gets no prediction,
    which a warning says.
    """
    from loralab.store.run_directory import find

    run = find(given.store, given.run)  # before torch is imported
    from loralab.config.stored import stored_config
    from loralab.runs.load import restore
    from loralab.runs.predict import TextPredictor
    from loralab.streams import is_unread
    from loralab.tasks.row_blocks import open_rows, output
    from loralab.training.signals import Interrupted, Interrupts

    task = stored_config(run.path / "config.yaml").task
    done, without = 0, list[str]()
    # a printed output needs no tidying up, so that Ctrl-C ends it at once
    noted = contextlib.nullcontext() if given.to is None else Interrupts()
    with open_rows(given.file, _columns(task, given.text), given.format) as rows, noted as interrupts:
        blocks = rows.blocks()
        first = next(blocks, None)
        if first is None:
            raise UserError(f"{rows.path}: has no rows")
        try:
            with output(rows, given.to) as out:
                check = (lambda: None) if interrupts is None else interrupts.check
                predictor = TextPredictor(restore(run, given.device), check)
                with _progress(rows, hidden=given.to is None and sys.stdout.isatty()) as tell:
                    for block in itertools.chain([first], blocks):
                        _refuse_taken(block, predictor.columns)
                        found = predictor(_texts(block))
                        rows.put(out, block, found, predictor.columns)
                        done += len(block.table)
                        empty = (value is None for value in found["prediction"])
                        without += itertools.compress(block.table.where, empty)
                        tell(done)
                        if given.to is None and is_unread():
                            return 0
        except Interrupted as stopped:
            return stopped.status
    lines = [] if given.to is None else [f"{count(done, 'row')} in {given.to}, by {run.path.name}"]
    if without:
        lines.insert(0, f"warning: {count(len(without), 'row')} without text or prediction (the first: {without[0]})")
    if lines:
        print(printed(lines), file=sys.stderr)
    return 0


def _refuse_taken(block: "Block", columns: Iterable[str]) -> None:
    """Raises UserError where the file has one of the columns of predictions."""
    taken = [name for name in columns if name in block.names]
    if taken:
        raise UserError(
            f"{block.table.path}: has a column '{shown(taken[0])}' already, which predictions are written to; rename it"
        )


def _columns(task: object, named: list[str] | None) -> dict[str, str]:
    """The columns of text, with the option that names them; raises UserError for another number than the run reads."""
    from typing import Any, cast

    from loralab import tasks
    from loralab.runs.plan import task_settings

    own, _ = tasks.columns(task_settings(cast(Any, task)))
    if named is not None and (len(named) != len(own) or len(set(named)) < len(named)):
        raise UserError(f"--text: got {', '.join(named)}; the run reads {count(len(own), 'column')}: {', '.join(own)}")
    return dict.fromkeys(named or own, "--text")


def _texts(block: "Block") -> list["Row | None"]:
    """The texts of each row; None where one is empty."""
    from loralab.tasks.local_files import texts_or_none

    columns = [texts_or_none(block.table, column, numbers=True) for column in block.table.columns]
    rows = zip(*columns, strict=True)
    return [None if None in row else tuple(text for text in row if text is not None) for row in rows]


@contextlib.contextmanager
def _progress(rows: "RowFile", *, hidden: bool) -> Iterator[Callable[[int], None]]:
    """On a terminal, a bar of the file's share; `tell(number of rows)` moves it."""
    if hidden or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), TextColumn("left"), Remaining(),
        console=Console(file=sys.stderr), transient=True, refresh_per_second=4,
    )  # fmt: skip
    with bar:
        line = bar.add_task("predicting", total=None if rows.share() is None else 1.0)
        yield lambda done: bar.update(line, completed=rows.share() or 0.0, description=f"{done:,} rows")
