"""`loralab runs`, `loralab rm` and `loralab show`: the runs of a store, read from its files alone, without torch."""

import argparse
import csv
import io
import json
import shutil
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from loralab.cli.run_columns import fitting, heading, plain_columns, table_columns
from loralab.cli.run_filters import NoneLeft, chosen, full_key, key_of, ordered
from loralab.entries import typed
from loralab.errors import UserError
from loralab.runs.console import group_table, summary
from loralab.runs.rows import Row, row_of, rows_of
from loralab.store.labels import labels_of
from loralab.store.record import FailedRecord, PausedRecord, Record
from loralab.store.run_directory import RunDirectory, find, status
from loralab.text import align, count, printed

__all__ = ["listing", "remove", "runs", "shown"]


def runs(given: argparse.Namespace) -> int:
    """Prints the runs; that none meets the conditions is said on standard error, and is no error."""
    rows = rows_of(given.store)
    try:
        found = chosen(rows, given.where)
    except NoneLeft as why:
        found = []
        print(printed([str(why)]), file=sys.stderr)
    asked = [full_key(key_of(each), rows, "--where") for each in given.where]
    asked = [key for key in asked if "/" in key]
    if given.sort is not None:
        asked.append(full_key(given.sort, rows, "--sort"))
        found = ordered(found, asked[-1], reverse=given.reverse)[: given.limit]
    else:
        found = found[-(given.limit or 0) :][:: -1 if given.reverse else 1]
    if given.json:
        print(json.dumps([_as_json(row) for row in found], indent=2, allow_nan=False))
    elif given.csv:
        print(_as_csv(found), end="")
    elif found or not rows:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        print(printed(listing(given.store, found, asked, width)))
    return 0


def remove(given: argparse.Namespace) -> int:
    """Removes runs without a question, and names each; refuses, before it removes any, where one is in progress."""
    rows = [row_of(find(given.store, name)) for name in given.runs]
    if given.where:
        rows += chosen(rows_of(given.store), given.where)
    elif not given.runs:
        raise UserError("rm: name a run, or choose some with --where; `loralab runs` lists them")
    rows = list({row.run.path: row for row in rows}.values())
    for row in rows:
        if row.run.path.parent.resolve() != (given.store / "runs").resolve():
            raise UserError(f"rm: {row.run.path} is not a run of {given.store / 'runs'}; --store names another store")
        row.run.check_removable()
    total = 0
    for row in rows:
        size = sum(path.lstat().st_size for path in row.run.path.rglob("*") if not path.is_dir())
        total += size
        if not given.dry_run:
            row.run.remove()
        does = "would remove" if given.dry_run else "removed"
        print(printed([f"{does} {row.run.path.name} ({row.status}, {size / 1e6:.1f} MB)"]), flush=True)
    if len(rows) > 1:
        print(f"{count(len(rows), 'run')}, {total / 1e6:.1f} MB{', none removed yet' if given.dry_run else ''}")
    return 0


def listing(store: Path, rows: Sequence[Row], asked: Sequence[str] = (), width: int | None = None) -> list[str]:
    """What the runs have in common, then a line for each: status, the settings that differ, scores, time.

    asked: keys that are shown in any case; width: of the terminal, None for one without an end.
    """
    if not rows:
        return [f"no runs in {store / 'runs'}; `{typed('train')}` makes one"]
    columns = table_columns(rows, asked)
    columns, hidden = fitting(columns, width)
    lines = align([[column.title for column in columns], *zip(*(column.cells for column in columns), strict=True)],
                  text=sum(column.is_text for column in columns))  # fmt: skip
    room = [f"no room for {', '.join(hidden)}; --csv and --json have all"] if hidden else []
    return [heading(store, rows), *lines, *room, *(row.error for row in rows if row.error)]


def _as_json(row: Row) -> dict[str, Any]:
    more = {"path": str(row.run.path), "settings": dict(row.settings), "scores": dict(row.scores), "error": row.error}
    return {**row.facts, **more}


def _as_csv(rows: Sequence[Row]) -> str:
    columns = plain_columns(rows)
    stream = io.StringIO()
    lines = csv.writer(stream, lineterminator="\n")
    lines.writerow([column.title for column in columns])
    lines.writerows(zip(*(column.cells for column in columns), strict=True))
    return stream.getvalue()


def shown(run: RunDirectory) -> list[str]:
    """Everything about a run, in lines: its command, scores, parameter groups and origin."""
    from loralab.config.command import command  # these take longer than the list of a store
    from loralab.config.stored import stored_config
    from loralab.runs.rates import rates_line

    record = run.record()
    config = stored_config(run.path / "config.yaml")
    labels = labels_of(run.path)
    called = "  ".join(filter(None, [labels.name, *(f"#{tag}" for tag in labels.tags)]))
    lines = [run.path.name, *filter(None, [called]), command(config), ""]
    if record is None or record["status"] == "failed":
        lines += [status(run)] + ([] if record is None else record["error"].strip().splitlines())
    else:
        width = record["backbone"].get("width") if "backbone" in record else None
        rates = rates_line(config, width=width, steps=record["steps"])
        lines += [*summary(record), "", *filter(None, [rates]), *group_table(record["groups"])]
        lines += ["", f"{record['device']}, CPU threads: {record['threads']}"]
    if record is not None:
        lines += [_origin(record)]
    files = sorted(path for path in run.path.rglob("*") if path.is_file())
    sizes = [(str(path.relative_to(run.path)), f"{path.stat().st_size:,} bytes") for path in files]
    return [*lines, "", f"{run.path}/", *(f"  {line}" for line in align(sizes))]


def _origin(record: Record | PausedRecord | FailedRecord) -> str:
    commit, diff = record["git"]["commit"], record["git"]["diff"]
    code = "no git checkout" if commit is None else f"commit {commit[:10]}" + (f" with diff {diff}" if diff else "")
    known = [name for name in ("python", "torch", "transformers") if name in record["versions"]]
    versions = ", ".join(f"{name} {record['versions'][name]}" for name in known)
    return f"{_clock(record['started'])} to {_clock(record['ended'])}; {code}; {versions}"


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")
