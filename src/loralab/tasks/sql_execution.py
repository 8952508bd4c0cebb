"""Execution of SQL answers: an answer is correct if it returns the rows of the reference query on the row's database.

A predicted query may be any text that a model generates. It runs on a read-only in-memory database, with limits on its
steps, its time, its rows, the size of its values and SQLite's memory; it writes no file.
"""

import sqlite3
import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

__all__ = ["Database", "by_script", "same_results"]

_STEPS_A_CALL = 50  # steps of SQLite's virtual machine between two calls of the progress handler
_MOST_CALLS = 4_000  # 200,000 steps; a query over a dozen rows takes some hundreds
_MOST_SECONDS = 10.0  # a pattern or a trim of the greatest lengths would take longer within the steps
_MOST_ROWS = 10_000
_LARGEST_RESULT = 10_000_000  # characters and bytes of all its texts
_MOST_MEMORY = 2**27  # bytes, of all of SQLite in this process
# The progress handler is not called within one `like` or `trim`, whose time grows with the product of two lengths.
_LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: 1_000,  # bytes of a value or a row; those of the tables have some dozens
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 10_000,  # bytes of a query
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 50,
    sqlite3.SQLITE_LIMIT_COLUMN: 100,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 50,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 200,
    sqlite3.SQLITE_LIMIT_VDBE_OP: 25_000,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER: 0,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}
_READS = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE}
_FUNCTIONS = {
    "abs", "avg", "coalesce", "count", "ifnull", "length", "like", "lower", "max", "min", "nullif", "round", "substr",
    "sum", "total", "trim", "upper",
}  # fmt: skip

_Row = tuple[Any, ...]


class Database:
    """An in-memory SQLite database built by a script, and read-only afterwards."""

    def __init__(self, script: str) -> None:
        self._calls = 0
        self._known: dict[str, list[_Row] | None] = {}  # by query
        self._connection = sqlite3.connect(":memory:")
        self._ends = 0.0
        self._connection.executescript(f"pragma temp_store = memory; pragma hard_heap_limit = {_MOST_MEMORY}; {script}")
        for limit, value in _LIMITS.items():
            self._connection.setlimit(limit, value)
        self._connection.set_authorizer(_may)
        self._connection.set_progress_handler(self._enough, _STEPS_A_CALL)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def rows(self, query: str) -> list[_Row] | None:
        """The rows of a query, numbers rounded to nine decimals as floats; None if it fails or exceeds a limit."""
        if query not in self._known:
            self._known[query] = self._run(query)
        return self._known[query]

    def same(self, prediction: str, reference: str) -> bool:
        """Whether two queries return the same rows, in any order unless the reference has `order by`."""
        got, wanted = self.rows(prediction), self.rows(reference)
        if got is None or wanted is None or len(got) != len(wanted):
            return False
        return got == wanted or ("order by" not in reference.lower() and Counter(got) == Counter(wanted))

    def _run(self, query: str) -> list[_Row] | None:
        self._calls, self._ends = 0, time.monotonic() + _MOST_SECONDS
        found: list[_Row] = []
        size = 0
        try:
            cursor = self._connection.execute(query)
            for row in cursor:
                size += sum(len(value) for value in row if isinstance(value, str | bytes))
                if len(found) == _MOST_ROWS or size > _LARGEST_RESULT:
                    return None
                found.append(tuple(map(_plain, row)))
        # two statements are a Warning, a NUL is a ValueError, and SQLite's memory limit is a MemoryError
        except (sqlite3.Error, sqlite3.Warning, ValueError, MemoryError):
            return None
        return None if cursor.description is None else found  # no description: not a query, such as an empty text

    def _enough(self) -> bool:
        self._calls += 1
        return self._calls > _MOST_CALLS or time.monotonic() > self._ends


def same_results(
    predictions: Sequence[str], references: Sequence[str], scripts: Sequence[str]
) -> npt.NDArray[np.bool_]:
    """Whether each prediction returns its reference's rows on its script's database, (n,) bool."""
    same = np.zeros(len(predictions), dtype=np.bool_)
    for script, rows in by_script(scripts).items():
        with Database(script) as database:
            for row in rows:
                same[row] = database.same(predictions[row], references[row])
    return same


def by_script(scripts: Sequence[str]) -> dict[str, list[int]]:
    """Distinct script -> the indices of its rows."""
    rows_of: dict[str, list[int]] = {}
    for row, script in enumerate(scripts):
        rows_of.setdefault(script, []).append(row)
    return rows_of


def _plain(value: Any) -> Any:
    return round(float(value), 9) if isinstance(value, int | float) else value


def _may(action: int, table: str | None, name: str | None, *_: str | None) -> int:
    """Allows reads of the tables and harmless functions; denies writes, pragma, attach, transactions and the schema."""
    if action == sqlite3.SQLITE_FUNCTION:
        allowed = name in _FUNCTIONS
    elif action == sqlite3.SQLITE_READ:
        allowed = table is not None and not table.startswith("sqlite_")
    else:
        allowed = action in _READS
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY
