"""A sweep's runs as tidy tables: one row a run, or one row a logged value. Reads a store's files and changes none.

A run that failed, diverged, paused, was cut off or never began is a row like any other; a missing number is NaN.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from loralab.errors import UserError
from loralab.files import read_regular
from loralab.store.metrics_file import MetricsFile, last_logged, parsed, unreadable
from loralab.store.record import FailedRecord, PausedRecord, Record, split_scores
from loralab.store.run_directory import FINAL, RunDirectory, standing
from loralab.sweeps.cell import Cell

__all__ = ["curves", "damaged", "logged", "mixed_versions", "table"]

TIMING = ("seconds", "training_seconds", "set_up_seconds", "steps_per_second", "steps_executed")
Facts = dict[str, Any]


def table(store: Path, cells: Sequence[Cell]) -> pd.DataFrame:
    """One row a cell, in the order of the cells.

    Columns: run (its directory), hash, stage; the axes; status (success, diverged, paused, failed, running, cut off,
    missing, damaged), error (its last line); the scores at the last step (`test/accuracy`, with `train/loss`) and at
    the best validation step (`best/test/accuracy`); step (reached so far, where it has not ended), best/step; TIMING
    (seconds are those of training and evaluation, without set-up); threads, device, commit, diff; started, ended
    (seconds since the epoch).

    A diverged run has no scores at its last step: they are of no use; nor has a paused one, whose last step is to come,
    and its `best/` scores are those so far. On an axis, None is the value null, and
    NaN says that the cell has no such axis; lists are tuples.
    """
    there = _directories(store)
    rows = [_row(store, cell, there) for cell in cells]
    names = dict.fromkeys(name for row in rows for name in row)
    best = [name for name in names if name.startswith("best/") and name != "best/step"]
    last = [name for name in names if "/" in name and not name.startswith("best/")]

    def texts(*names: str) -> dict[str, pd.Series]:
        return {name: pd.Series([row.get(name) for row in rows], dtype=str) for name in names}

    def numbers(*names: str) -> dict[str, pd.Series]:
        return {name: _numbers([row.get(name) for row in rows]) for name in names}

    columns = texts("run", "hash", "stage") | _axes(cells) | texts("status", "error")
    columns |= numbers(*last, *best, "step", "best/step", *TIMING, "threads") | texts("device", "commit", "diff")
    return pd.DataFrame(columns | numbers("started", "ended"))


def curves(
    store: Path, cells: Sequence[Cell], split: str | None = None, *, left_out: dict[str, str] | None = None
) -> pd.DataFrame:
    """Every logged value, of one split or of all: run, the axes, step, split, name, value, seconds (since the start).

    Runs that have not ended are in it as far as they came; a value that was not finite is NaN. left_out: receives what
    is wrong with each run whose metrics.jsonl is damaged, by its name; without it, the first one raises UserError.
    """
    there = _directories(store)
    names = [there.get(_hash(cell.run), cell.run) for cell in cells]
    source: list[int] = []  # the cell of each row
    values: list[tuple[Any, ...]] = []
    for at, run in enumerate(names):
        try:
            lines = list(logged(store / "runs" / run))
        except UserError as error:
            if left_out is None:
                raise
            left_out[run] = str(error)
            continue
        for line in lines:
            if split is None or line["split"] == split:
                for name, value in line["values"].items():
                    source.append(at)
                    values.append((line["step"], line["split"], name, value, line.get("seconds")))
    runs = pd.DataFrame({"run": pd.Series(names, dtype=str), **_axes(cells)})
    long = pd.DataFrame(values, columns=["step", "split", "name", "value", "seconds"])
    long = long.astype({"step": int, "split": str, "name": str, "value": float, "seconds": float})
    return pd.concat([runs.iloc[source].reset_index(drop=True), long], axis=1)


def mixed_versions(table: pd.DataFrame) -> list[str]:
    """Lines that tell of finished rows from more than one code version, the commonest first; none where it is one."""
    done = table[table["status"].isin(FINAL)]
    counts: dict[str, int] = {}
    for commit, diff in zip(done["commit"], done["diff"], strict=True):
        version = "no git checkout" if pd.isna(commit) else f"commit {commit[:10]}"
        version += "" if pd.isna(diff) else f" with diff {diff}"
        counts[version] = counts.get(version, 0) + 1
    if len(counts) < 2:
        return []
    lines = [f"{len(done)} finished runs come from {len(counts)} versions of the code:"]
    for version, count in sorted(counts.items(), key=lambda item: -item[1]):
        lines += [f"  {count} run{'s' if count != 1 else ''}: {version}"]
    return lines


def damaged(table: pd.DataFrame) -> list[str]:
    """A line for each damaged run of a table: its name, and what is wrong with it."""
    rows = table[table["status"] == "damaged"]
    return [f"left out, for it is damaged: {run}: {why}" for run, why in zip(rows["run"], rows["error"], strict=True)]


def _row(store: Path, cell: Cell, there: dict[str, str]) -> Facts:
    digest = _hash(cell.run)
    name = there.get(digest, cell.run)
    return {"run": name, "hash": digest, "stage": cell.stage, **_facts(RunDirectory(store / "runs" / name))}


def _facts(run: RunDirectory) -> Facts:
    """What the run's files tell."""
    now = standing(run)
    if now.status in ("running", "cut off"):
        return {"status": now.status, "step": now.step}
    if now.record is None:  # missing or damaged
        return {"status": now.status} | ({} if now.error is None else {"error": now.error})
    if now.record["status"] != "failed":
        try:
            return _finished(run, now.record)
        except UserError as why:
            return {"status": "damaged", "error": str(why)}
    text = now.record["error"].strip().splitlines()
    error = text[-1] if text else None
    return {"status": "failed", "error": error, "step": now.step, **_origin(now.record)}


def _finished(run: RunDirectory, record: Record | PausedRecord) -> Facts:
    facts: Facts = {"status": record["status"], "step": record["steps"]}
    for split, scores in split_scores(record["metrics"]).items():
        for at, prefix, values in (("last", "", scores["last"]), ("best", "best/", scores["best"])):
            at_end = values is not None and values["step"] == record["steps"] and record["status"] == "success"
            if values is not None and (at == "best" or at_end):
                facts |= {f"{prefix}{split}/{name}": value for name, value in values.items() if name != "step"}
    best = record["metrics"]["validation"]["best"]
    facts["best/step"] = None if best is None else best["step"]
    line = last_logged(run.path, "train")
    facts["train/loss"] = None if line is None else line["values"].get("loss")
    facts |= {name: record["timing"].get(name) for name in TIMING}
    return {**facts, "threads": record["threads"], "device": record["device"], **_origin(record)}


def _origin(record: Record | PausedRecord | FailedRecord) -> Facts:
    return {**record["git"], "started": record["started"], "ended": record["ended"]}


def logged(directory: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a metrics.jsonl, none where there is no file; raises UserError for a damaged one."""
    path = directory / MetricsFile.FILE
    try:
        lines = read_regular(path).split(b"\n")[:-1]  # what has no end yet is being written, or was cut by a kill
    except FileNotFoundError:
        return
    except OSError as error:
        raise unreadable(path, error) from error
    for number, text in enumerate(lines, start=1):
        yield parsed(text, f"{path}, line {number}", directory)


def _axes(cells: Sequence[Cell]) -> dict[str, pd.Series]:
    """A typed column for every axis, in the order in which the cells name them."""
    columns = {}
    for key in dict.fromkeys(key for cell in cells for key in cell.axes):
        values = [_frozen(cell.axes[key]) if key in cell.axes else float("nan") for cell in cells]
        whole = all(key in cell.axes and cell.axes[key] is not None for cell in cells)
        columns[key] = pd.Series(values) if whole else pd.Series(values, dtype=object)
    return columns


def _frozen(value: Any) -> Any:
    """Lists as tuples, which can be compared and grouped by."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _numbers(values: list[Any]) -> pd.Series:
    return pd.Series(values, dtype=float) if None in values or not values else pd.Series(values)


def _directories(store: Path) -> dict[str, str]:
    """Hash -> name of the run's directory, for a run may have been made under another slug; of two the first."""
    names = sorted(_listed(store / "runs"), reverse=True)
    return {_hash(name): name for name in names}


def _listed(directory: Path) -> set[str]:
    try:
        return set(os.listdir(directory))  # noqa: PTH208  # names alone: Path.iterdir makes an object of each
    except (FileNotFoundError, NotADirectoryError):
        return set()


def _hash(name: str) -> str:
    return RunDirectory(Path(name)).hash
