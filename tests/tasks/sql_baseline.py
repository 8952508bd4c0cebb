"""Baseline of task=sql that ignores the question: the best of several hundred fixed SQL templates.

A template's columns are fixed positions ("the first column of numbers") and its value is the last one in the question,
so the baseline is generous: a model that scores no higher has not learned to use the questions.
"""

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from loralab.tasks.splits import Pairs
from loralab.tasks.sql_execution import Database, by_script

__all__ = ["best_constant_template"]

_ANY = {"first": 0, "second": 1, "third": 2, "last": -1}
_TYPED = {"first": 0, "second": 1, "last": -1}

_CONTEXT = re.compile(r"(\w+) \( (.+?) \) (.+)")
_VALUE = re.compile(r"'\w+'|\d+")


class _Example(NamedTuple):
    table: str
    columns: dict[str, str]  # "the first number" -> its name; places that the table lacks are left out
    value: str  # the question's last one; the table's name, quoted, where it has none


def best_constant_template(pairs: Pairs) -> tuple[str, float]:
    """The template with the highest execution accuracy (0 to 1) over the pairs, and that accuracy."""
    assert pairs.databases is not None
    right: Counter[str] = Counter()
    numbers: Counter[str] = Counter()
    templates = list(_templates())
    for script, rows in by_script(pairs.databases).items():
        with Database(script) as database:
            for row in rows:
                example, reference = _example(pairs.contexts[row]), pairs.references[row][0]
                right.update(t for t in templates if database.same(_filled(t, example), reference))
                result = database.rows(reference)
                if result is not None and len(result) == 1 and isinstance(result[0][0], float):
                    numbers[f"select {result[0][0]:g}"] += 1  # `select 1` is a template too
    template, count = (right + numbers).most_common(1)[0]
    return template, count / len(pairs)


def _templates() -> Iterator[str]:
    """SQL with {table}, {value} and columns as {first number}; a condition compares a column with the value."""
    columns = [f"{{{place} column}}" for place in _ANY]
    texts, numbers = ([f"{{{place} {kind}}}" for place in _TYPED] for kind in ("text", "number"))
    conditions = ["", *(f" where {name} = {{value}}" for name in texts)]
    conditions += [f" where {name} {operator} {{value}}" for name in numbers for operator in "=<>"]
    aggregates = [f"{function}({name})" for function in ("max", "min", "avg", "sum") for name in numbers]
    chosen = [*columns, *texts, *numbers]
    for what, condition in itertools.product([*chosen, "count(*)", *aggregates], conditions):
        yield f"select {what} from {{table}}{condition}"
    for what in chosen:
        yield f"select distinct {what} from {{table}}"
        for name, way, limit in itertools.product(numbers, ("asc", "desc"), (1, 2, 3)):
            yield f"select {what} from {{table}} order by {name} {way} limit {limit}"


def _example(context: str) -> _Example:
    match = _CONTEXT.fullmatch(context)
    assert match is not None, context
    table, described, question = match.groups()
    names: dict[str, list[str]] = {"column": [], "text": [], "number": []}
    for column in described.split(" , "):
        name, kind = column.split()
        names["column"].append(name)
        names[kind].append(name)
    places = {
        f"{place} {kind}": of_kind[at]
        for kind, of_kind in names.items()
        for place, at in (_ANY if kind == "column" else _TYPED).items()
        if -len(of_kind) <= at < len(of_kind)
    }
    values = _VALUE.findall(question)
    return _Example(table, places, values[-1] if values else f"'{table}'")


def _filled(template: str, example: _Example) -> str:
    """The template as SQL; if the table lacks its columns, the result is not SQL and never correct."""
    try:
        return template.format_map({"table": example.table, "value": example.value, **example.columns})
    except KeyError:
        return ""
