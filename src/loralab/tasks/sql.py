"""task=sql: questions about small tables -> SQL, generated from a seed; an answer is scored by executing it.

Example: the context `films ( title text , year number ) which title has the highest year` has the target
`select title from films order by year desc limit 1`. Like WikiSQL (Zhong et al. 2017), plus sorting, distinct values
and scores by execution.

No two splits have a table with the same set of columns, so no context is in two splits. 9 table names, 15 columns and
two values of most kinds (after the bars in sql_words.py) occur in validation and test only.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from loralab.errors import UserError
from loralab.tasks.settings import TaskSettings
from loralab.tasks.splits import Pairs, RawTask
from loralab.tasks.sql_words import DOMAINS, KINDS, RANGES, Domain

__all__ = ["SIZES", "identity", "read"]

_VERSION = "1"  # of the words, the questions and their order: within one version a seed determines every byte
SIZES = {"train": 20_000, "validation": 1_000, "test": 1_000}
_QUESTIONS_A_TABLE = {"train": 10, "validation": 5, "test": 5}

_T = TypeVar("_T")


def identity(_settings: TaskSettings, _cache: Path | None) -> dict[str, str]:
    """The version of the generator, which determines every byte together with task.split_seed."""
    return {"data": f"sql {_VERSION}"}


def read(settings: TaskSettings) -> RawTask[Pairs]:
    """The task generated from `settings.split_seed`."""
    seed = settings.split_seed
    if seed is None:
        raise UserError("task.split_seed: got null; task=sql is made from it, so it must be a whole number, e.g. 0")
    splits, seen, first = {}, set[frozenset[str]](), 0
    for part, (split, size) in enumerate(SIZES.items()):
        draws = _Draws(seed, part)
        tables: set[frozenset[str]] = set()
        contexts: dict[str, tuple[str, str]] = {}  # -> the query, the script
        while len(contexts) < size:
            table = _table(draws, held_out=split != "train")
            columns = frozenset(table.columns)
            if columns not in seen:
                tables.add(columns)
                script = table.script  # one str shared by all rows of the table
                for question, query in _questions(draws, table, min(_QUESTIONS_A_TABLE[split], size - len(contexts))):
                    contexts.setdefault(f"{table.heading} {question}", (query, script))
        splits[split] = Pairs(
            contexts=list(contexts),
            references=[(query,) for query, _ in contexts.values()],
            rows=np.arange(first, first + size, dtype=np.int64),
            databases=[script for _, script in contexts.values()],
        )
        seen |= tables
        first += size
    return RawTask("sql", "generation", None, splits, ("execution_accuracy", "held_out_accuracy", "exact_match"))


class _Draws:
    """Random choices from PCG64's raw stream, which is the same in every version of numpy (`Generator` is not)."""

    def __init__(self, *seed: int) -> None:
        self._stream = np.random.PCG64(list(seed))

    def below(self, count: int) -> int:
        return int(self._stream.random_raw()) % count

    def one(self, items: Sequence[_T]) -> _T:
        return items[self.below(len(items))]

    def some(self, items: Sequence[_T], count: int) -> list[_T]:
        """`count` different items, in random order."""
        pool = list(items)
        return [pool.pop(self.below(len(pool))) for _ in range(count)]


@dataclass(frozen=True)
class _Table:
    """A table: its name, {column: whether it holds text}, and its rows."""

    name: str
    columns: dict[str, bool]
    rows: list[tuple[str | int, ...]]

    @property
    def heading(self) -> str:
        """The description of the table in a context."""
        columns = " , ".join(f"{name} {'text' if text else 'number'}" for name, text in self.columns.items())
        return f"{self.name} ( {columns} )"

    @property
    def script(self) -> str:
        """The SQL that creates the table."""
        columns = ", ".join(f"{name} {'text' if text else 'integer'}" for name, text in self.columns.items())
        rows = ", ".join(f"({', '.join(map(_literal, row))})" for row in self.rows)
        return f"create table {self.name} ({columns}); insert into {self.name} values {rows};"

    def values(self, column: str) -> list[str | int]:
        at = list(self.columns).index(column)
        return [row[at] for row in self.rows]

    def named(self, *, text: bool) -> list[str]:
        return [name for name, is_text in self.columns.items() if is_text == text]


def _table(draws: _Draws, *, held_out: bool) -> _Table:
    """A random table of 3 to 6 columns, at least one of text and one of numbers, and 6 to 12 rows."""
    domain = draws.one(DOMAINS)
    texts, numbers = domain.texts.all(held_out=held_out), domain.numbers.all(held_out=held_out)
    width = 3 + draws.below(4)
    chosen = [draws.one(texts), draws.one(numbers)]
    chosen += draws.some([name for name in (*texts, *numbers) if name not in chosen], width - 2)
    columns = {name: name in texts for name in draws.some(chosen, width)}
    height = 6 + draws.below(7)
    cells = [_cells(draws, domain, name, height, held_out=held_out) for name in columns]
    return _Table(draws.one(domain.tables.all(held_out=held_out)), columns, list(zip(*cells, strict=True)))


def _cells(draws: _Draws, domain: Domain, column: str, height: int, *, held_out: bool) -> list[str | int]:
    """A column's values; texts repeat, so that counts exceed 1."""
    if column in domain.kinds:
        words = KINDS[domain.kinds[column]].all(held_out=held_out)
        pool = draws.some(words, min(len(words), 3 + draws.below(height - 2)))
        return [draws.one(pool) for _ in range(height)]
    low, high, step = RANGES[column]
    return [low + step * draws.below((high - low) // step + 1) for _ in range(height)]


@dataclass(frozen=True)
class _Query:
    """A question and its SQL, with the conditions for keeping it.

    Every query of `others` must have another result; the query `counted`, if any, must count at least two rows.
    """

    question: str
    sql: str
    others: tuple[str, ...] = ()
    counted: str | None = None


def _questions(draws: _Draws, table: _Table, count: int) -> Iterator[tuple[str, str]]:
    """Yields up to `count` questions with their SQL; without empty results, counts of 0 and parts without effect."""
    connection = sqlite3.connect(":memory:")
    connection.executescript(table.script)

    def rows(sql: str) -> list[tuple[str | int | float, ...]]:
        found = connection.execute(sql).fetchall()
        return found if "order by" in sql else sorted(found)

    asked: set[str] = set()
    for _ in range(20 * count):  # a table may have fewer than `count` questions
        if len(asked) == count:
            break
        query = _QUERIES[draws.one(_MIX)](draws, table)
        if query is None or query.sql in asked:
            continue
        result = rows(query.sql)
        if not result or result[0] in ((0,), (None,)) or any(rows(other) == result for other in query.others):
            continue
        if query.counted is None or rows(query.counted)[0] >= (2,):
            asked.add(query.sql)
            yield query.question, query.sql
    connection.close()


@dataclass(frozen=True)
class _Condition:
    column: str
    operator: str
    value: str | int

    @property
    def sql(self) -> str:
        return f"{self.column} {self.operator} {_literal(self.value)}"

    def words(self, draws: _Draws, *, verb: bool) -> str:
        """`year is above 1990`, without the verb `year above 1990`."""
        relation = "" if self.operator == "=" else draws.one(_RELATIONS[self.operator])
        if self.operator == "=" and draws.below(3) == 0:
            relation = "equal to"
        return " ".join(filter(None, [self.column, "is" if verb else "", relation, _literal(self.value)]))


_RELATIONS = {
    ">": ("above", "over", "more than", "greater than", "higher than"),
    "<": ("below", "under", "less than", "smaller than", "lower than"),
}
_SHOW = ("what is the", "show the", "give the", "list the", "find the", "tell me the")
_HIGHEST = ("highest", "largest", "greatest", "biggest", "most")
_LOWEST = ("lowest", "smallest", "least", "minimal")
_AGGREGATES = {
    "max": (*_HIGHEST[:4], "maximum"), "min": (*_LOWEST, "minimum"), "avg": ("average", "mean"),
    "sum": ("total", "summed", "combined"),
}  # fmt: skip


def _condition(draws: _Draws, table: _Table, column: str) -> _Condition:
    operator = "=" if table.columns[column] else draws.one(("=", ">", ">", "<", "<"))
    return _Condition(column, operator, draws.one(table.values(column)))


def _where(draws: _Draws, conditions: Sequence[_Condition]) -> tuple[str, str, tuple[str, ...]]:
    """Words and SQL of the conditions, and the SQL without each one: the result must depend on every condition."""
    connective = draws.one(("where", "whose", "with", "for which", "having"))
    verb = connective not in ("with", "having")
    words = " and ".join(condition.words(draws, verb=verb) for condition in conditions)
    shorter = tuple(_clause([c for c in conditions if c != dropped]) for dropped in conditions)
    return (f" {connective} {words}" if conditions else ""), _clause(conditions), shorter


def _clause(conditions: Sequence[_Condition]) -> str:
    return f" where {' and '.join(c.sql for c in conditions)}" if conditions else ""


def _of(draws: _Draws, table: _Table) -> str:
    return draws.one(
        ("", f" of the {table.name}", f" of {table.name}", f" in {table.name}", f" among the {table.name}")
    )


def _select(count: int) -> Callable[[_Draws, _Table], _Query | None]:
    def make(draws: _Draws, table: _Table) -> _Query | None:
        if len(table.columns) <= count:
            return None
        column, *rest = draws.some(list(table.columns), 1 + count)
        words, clause, shorter = _where(draws, [_condition(draws, table, name) for name in rest])
        start = f"select {column} from {table.name}"
        opening = f"{draws.one(_SHOW)} {column}{_of(draws, table)}" if draws.below(5) else f"which {column}"
        return _Query(opening + words, start + clause, tuple(start + other for other in shorter))

    return make


def _count(draws: _Draws, table: _Table) -> _Query | None:
    columns = draws.some(list(table.columns), 1 + draws.below(2))
    words, clause, shorter = _where(draws, [_condition(draws, table, name) for name in columns])
    start = f"select count(*) from {table.name}"
    opening = draws.one(("how many {}", "how many {} are there", "count the {}", "number of {}", "find how many {}"))
    return _Query(opening.format(table.name) + words, start + clause, tuple(start + other for other in shorter))


def _aggregate(draws: _Draws, table: _Table) -> _Query | None:
    column = draws.one(table.named(text=False))
    others = [name for name in table.columns if name != column]
    function = draws.one(tuple(_AGGREGATES))
    conditions = [_condition(draws, table, name) for name in draws.some(others, min(1, draws.below(3)))]
    words, clause, shorter = _where(draws, conditions)
    start = f"select {function}({column}) from {table.name}"
    return _Query(
        f"{draws.one(_SHOW)} {draws.one(_AGGREGATES[function])} {column}{_of(draws, table)}{words}",
        start + clause,
        tuple(start + other for other in shorter),
        f"select count(*) from {table.name}{clause}",
    )


def _sorted(draws: _Draws, table: _Table) -> _Query | None:
    """The first 1 to 4 rows sorted by a column of numbers, in which these and the next row have different values."""
    number = draws.one(table.named(text=False))
    column = draws.one([name for name in table.columns if name != number])
    limit = draws.one((1, 1, 1, 1, 2, 3, 4))
    down = draws.below(2) == 0
    top = sorted(table.values(number), reverse=down)[: limit + 1]
    if len(set(top)) < len(top):
        return None
    extreme = draws.one(_HIGHEST if down else _LOWEST)
    many, of = ("" if limit == 1 else f"{limit} "), _of(draws, table)
    question = draws.one(
        (
            f"{draws.one(_SHOW)} {many}{column}{of} with the {extreme} {number}",
            f"which {many}{column} has the {extreme} {number}",
            f"{'top' if down else 'bottom'} {limit} {column}{of} by {number}",
        )
    )
    order = f"order by {number} {'desc' if down else 'asc'} limit {limit}"
    return _Query(question, f"select {column} from {table.name} {order}")


def _distinct(draws: _Draws, table: _Table) -> _Query | None:
    column = draws.one(table.named(text=True))
    which = draws.one(("different", "distinct", "unique"))
    opening = draws.one(("what are the", "show the", "list the", "find all"))
    query = f"select distinct {column} from {table.name}"
    return _Query(f"{opening} {which} {column}{_of(draws, table)}", query, (query.replace("distinct ", ""),))


_QUERIES: dict[str, Callable[[_Draws, _Table], _Query | None]] = {
    "select": _select(1), "and": _select(2), "count": _count, "aggregate": _aggregate, "sorted": _sorted,
    "distinct": _distinct,
}  # fmt: skip
# Relative frequency of each kind; the best constant template (tests/tasks/sql_baseline.py) must score below 0.1.
_MIX = ("select",) * 6 + ("and",) * 7 + ("count",) * 3 + ("aggregate",) * 4 + ("sorted",) * 6 + ("distinct",)


def _literal(value: str | int) -> str:
    return f"'{value}'" if isinstance(value, str) else str(value)
