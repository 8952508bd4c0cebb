"""Execution of SQL answers: an answer is correct if it returns the rows of the reference query on the row's database.

A predicted query may be any text that a model generates. It runs on a read-only in-memory database, with limits on its
steps, its rows and the size of its values.
"""

import sqlite3
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

__all__ = ["Database", "by_script", "same_results"]

_STEPS_A_CALL = 1_000  # steps of SQLite's virtual machine between two calls of the progress handler
_MOST_CALLS = 1_000  # a million steps; a query over a dozen rows takes some hundreds
_MOST_ROWS = 10_000
_LONGEST_VALUE = 100_000  # bytes
_LONGEST_QUERY = 10_000  # bytes
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
        self._connection.executescript(script)
        self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_VALUE)
        self._connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, _LONGEST_QUERY)
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
        self._calls = 0
        try:
            cursor = self._connection.execute(query)
            found = cursor.fetchmany(_MOST_ROWS + 1)
        except (sqlite3.Error, sqlite3.Warning, ValueError):  # two statements are a Warning, a NUL is a ValueError
            return None
        if cursor.description is None or len(found) > _MOST_ROWS:  # not a query (an empty text), or too many rows
            return None
        return [tuple(map(_plain, row)) for row in found]

    def _enough(self) -> bool:
        self._calls += 1
        return self._calls > _MOST_CALLS


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
