"""The columns of a list of runs: the settings that differ, the scores, and what fits into a terminal."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from loralab.runs.differing import LEADING, differing, short_names, text_of
from loralab.runs.rows import Row, known_keys
from loralab.text import count, figure, shown

__all__ = ["Column", "fitting", "heading", "plain_columns", "table_columns"]

_GAP = 2  # spaces between columns


@dataclass(frozen=True)
class Column:
    """key: of the values; title: its header; is_text: aligned to the left; rank: the highest makes room first."""

    key: str
    title: str
    cells: tuple[str, ...]
    is_text: bool = False
    rank: int = 0

    @property
    def width(self) -> int:
        return max(len(shown(cell)) for cell in (self.title, *self.cells)) + _GAP


def table_columns(rows: Sequence[Row], asked: Sequence[str]) -> list[Column]:
    """For people: hash, labels and status, the settings that differ or are asked for, scores, time."""

    def column(key: str, title: str, cell: Callable[[Row], str], **more: Any) -> Column:
        return Column(key, title, tuple(map(cell, rows)), **more)

    def value(key: str, title: str, write: Callable[[Any], str], **more: Any) -> Column:
        return column(key, title, lambda row: "" if (v := row.value(key)) in (None, []) else write(v), **more)

    found = [column("hash", "run", lambda row: row.run.hash, is_text=True)]
    found += [value(key, key, text_of, is_text=True, rank=1) for key in ("name", "tags") if _any(rows, key)]
    found += [column("status", "status", lambda row: row.status, is_text=True)]
    settings = differing(rows)
    settings += [key for key in asked if "/" not in key and key in known_keys() and key not in settings]
    titles = short_names(settings)
    for key in settings:
        found.append(column(key, titles[key], partial(_setting, key), rank=2 + _rank(key, settings)))
    for key in dict.fromkeys([*_scores(rows), *(key for key in asked if "/" in key)]):
        found.append(column(key, key, partial(_score, key)))
    found += [value("seconds", "seconds", lambda v: f"{v:.1f}", rank=1)]
    return [*found, column("when", "when", lambda row: _clock(row.when), rank=1)]


def plain_columns(rows: Sequence[Row]) -> list[Column]:
    """For programs: every fact, the leading settings and those that differ, and every score, as they are."""
    facts = ("run", "hash", "status", "name", "tags")
    settings = list(dict.fromkeys([*(key for key in LEADING if _any(rows, key)), *differing(rows)]))
    scores = dict.fromkeys(key for row in rows for key in row.scores)
    keys = [*facts, *settings, "metric", *scores, "step", "seconds", "started", "ended"]

    def cell(row: Row, key: str) -> str:
        value = row.value(key)
        return "" if value is None and key not in row.settings else text_of(value)

    return [Column(key, key, tuple(cell(row, key) for row in rows)) for key in keys]


def fitting(columns: Sequence[Column], width: int | None) -> tuple[list[Column], list[str]]:
    """The columns that a terminal has room for, and the titles of the others; width: None for room for all."""
    left, hidden = list(columns), []
    while width is not None and sum(column.width for column in left) - _GAP > width:
        least = max(left, key=lambda column: column.rank)
        if least.rank == 0:
            break
        left.remove(least)
        hidden.append(least.title)
    return left, hidden


def heading(store: Path, rows: Sequence[Row]) -> str:
    """`12 runs in outputs/runs; all: model=minilm task=trec`: the leading settings that all runs share."""
    differ, there = differing(rows), [row for row in rows if row.settings]
    same = [
        f"{key}={text_of(there[0].settings[key])}"
        for key in LEADING
        if there and key not in differ and all(key in row.settings for row in there)
    ]
    return f"{count(len(rows), 'run')} in {store / 'runs'}" + (f"; all: {' '.join(same)}" if same else "")


def _scores(rows: Sequence[Row]) -> Iterator[str]:
    """Each primary metric on validation and on the first test split, then the loss on validation."""
    for row in rows:
        metric = row.facts["metric"]
        if metric is not None:
            yield from (f"{split}/{metric}" for split in ("validation", *_tests(row)[:1]))
    if any(row.facts["metric"] is not None for row in rows):
        yield "validation/loss"


def _tests(row: Row) -> list[str]:
    splits = dict.fromkeys(key.removeprefix("best/").partition("/")[0] for key in row.scores)
    return [split for split in splits if split.startswith("test")]


def _setting(key: str, row: Row) -> str:
    return text_of(row.settings[key]) if key in row.settings else ""


def _score(key: str, row: Row) -> str:
    """A dash for a score that the run's task has and the run has not."""
    of_its_task = key.rpartition("/")[2] in ("loss", row.facts["metric"]) and row.facts["metric"] is not None
    return figure(row.scores.get(key)) if key in row.scores or of_its_task else ""


def _any(rows: Sequence[Row], key: str) -> bool:
    return any(row.value(key) not in (None, []) for row in rows)


def _rank(key: str, keys: Sequence[str]) -> int:
    """Leading settings stay the longest, in their order; of the others the first."""
    return LEADING.index(key) if key in LEADING else len(LEADING) + list(keys).index(key)


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")
