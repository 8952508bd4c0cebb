"""`--where KEY=VALUE` and `--sort KEY`: which runs of a store, and in which order."""

import difflib
import operator
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from loralab.config.keys import no_such_key
from loralab.config.schema import Config
from loralab.errors import UserError
from loralab.runs.differing import text_of
from loralab.runs.rows import Row, known_keys, lower_is_better
from loralab.text import count

__all__ = ["NoneLeft", "chosen", "full_key", "key_of", "ordered"]

_CONDITION = re.compile(r"([\w./*-]+?)\s*(==|!=|<=|>=|=|<|>)\s*(.*)", re.DOTALL)
_ORDERS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_MOST = 8  # values that a line lists


class NoneLeft(UserError):  # noqa: N818  # a state of the list
    """No run meets the conditions; the line says what the runs have instead."""


def chosen(rows: Sequence[Row], conditions: Sequence[str]) -> list[Row]:
    """The rows that meet every condition; raises UserError for one that cannot be read, NoneLeft where no row does.

    KEY=VALUE, !=, <, <=, >, >=. Text may have * and ?; a list is equal in any order; `tags=a` asks for one of them.
    """
    left = list(rows)
    for condition in conditions:
        name, sign, wanted = _read(condition)
        key = full_key(name, rows, "--where")
        kept = [row for row in left if _meets(key, row.value(key), sign, wanted)]
        if left and not kept:
            raise NoneLeft(f"no run has {key}{sign}{wanted}; {_what_there_is(key, left)}")
        left = kept
    return left


def ordered(rows: Sequence[Row], key: str, *, reverse: bool = False) -> list[Row]:
    """By the value of a whole key: the best score first, others from the smallest; without a value last in any case."""
    there = [row for row in rows if row.value(key) is not None]
    falls = "/" in key and not lower_is_better(key)
    there.sort(key=lambda row: _rank(row.value(key)), reverse=falls != reverse)
    return there + [row for row in rows if row.value(key) is None]


def key_of(condition: str) -> str:
    """The key that a condition names, as it is typed."""
    return _read(condition)[0]


def full_key(key: str, rows: Sequence[Row], option: str) -> str:
    """The key of a setting, a score or a fact; its last part is enough where only one key ends in it.

    Raises UserError, with the nearest key, for one that no run can have.
    """
    known = dict.fromkeys(known_keys())
    for row in rows:
        known |= dict.fromkeys([*row.settings, *row.scores, *row.facts])
    if key in known:
        return key
    if key.removesuffix(".name") in known:  # model.name
        return key.removesuffix(".name")
    ends = [each for each in known if each.rpartition(".")[2] == key]
    if len(ends) == 1:
        return ends[0]
    if ends:
        raise UserError(f"{option}: {key}: several settings end so; write {', '.join(ends)}")
    scores = [each for each in known if "/" in each]
    near = difflib.get_close_matches(key, known, n=1)
    if "/" in key or any(each.rpartition("/")[2] == key for each in scores):
        near = [each for each in scores if each.rpartition("/")[2] == key][:2] or near
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise UserError(f"{option}: {key}: no run has such a score; there are {', '.join(scores) or 'none'}{hint}")
    line = f"{key}: no such key; did you mean {near[0]}?" if near else no_such_key(key, Config)
    raise UserError(f"{option}: {line}")


def _read(condition: str) -> tuple[str, str, str]:
    found = _CONDITION.fullmatch(condition)
    if found is None:
        raise UserError(f"--where: got {condition!r}; write KEY=VALUE, or !=, <, <=, >, >= (in quotes, for the shell)")
    return found[1], found[2], found[3].strip()


def _meets(key: str, value: Any, sign: str, wanted: str) -> bool:
    if sign not in _ORDERS:
        return _equals(key, value, wanted) != (sign == "!=")
    limit = _number(wanted)
    if limit is None:
        raise UserError(f"--where: {key}{sign}{wanted}: {sign} compares with a number")
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(_ORDERS[sign](value, limit))


def _equals(key: str, value: Any, wanted: str) -> bool:
    if isinstance(value, list):
        items = [each.strip() for each in wanted.strip("[]").split(",") if each.strip()]
        texts = [text_of(each) for each in value]
        return items[0] in texts if key == "tags" and len(items) == 1 else sorted(items) == sorted(texts)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _number(wanted) == value
    return fnmatchcase(text_of(value), wanted.strip("{}") if isinstance(value, dict) else wanted)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _rank(value: Any) -> tuple[int, Any]:
    """Numbers before texts, so that any two values can be compared."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return (0, value) if is_number else (1, text_of(value))


def _what_there_is(key: str, rows: Sequence[Row]) -> str:
    values = sorted({_rank(value) for row in rows if (value := row.value(key)) is not None})
    if not values:
        return f"none of {count(len(rows), 'run')} has a value there"
    texts = [text_of(value) for _, value in values]
    listed = ", ".join(texts[:_MOST]) + (f" and {len(texts) - _MOST} more" if len(texts) > _MOST else "")
    return f"{key} is {listed} there"
