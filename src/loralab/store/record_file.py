"""record.json, read: a record that has all that its type says, or one line that says what is wrong with the file."""

import functools
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NotRequired, cast, get_args, get_origin, get_type_hints, is_typeddict

from loralab.errors import UserError
from loralab.files import read_regular
from loralab.store.record import FailedRecord, PausedRecord, PretrainingRecord, Record, SplitScores, split_scores
from loralab.store.strict_json import parse

__all__ = ["read_record"]

# What nobody reads of a failed run.
UNREAD = ("run_id", "name", "config", "identity")
_WORDS = {str: "a text", int: "a whole number", float: "a number", dict: "an object", list: "a list", NoneType: "null"}


def read_record(path: Path) -> Record | PausedRecord | FailedRecord | None:
    """The record in this file, None where there is none; raises UserError for a file that is not a record.

    Keys that this version does not know are left as they are.
    """
    try:
        found = parse(read_regular(path))
        wrong = _wrong(found)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); allow yourself to read it") from error
    except RecursionError:
        wrong = "it is nested too deeply"
    except OSError as error:
        wrong = error.strerror
    except ValueError as error:
        wrong = str(error)
    if wrong is not None:
        raise UserError(f"{path} is damaged ({wrong}); remove it, and the same command trains the run again")
    return cast(Record | PausedRecord | FailedRecord, found)


def _wrong(record: Any) -> str | None:
    """What is wrong with a record; None for a whole one."""
    if not isinstance(record, dict) or "status" not in record:
        return "it is not a run's record"
    status = record["status"]
    if status not in ("success", "diverged", "paused", "failed"):
        return f"status is {str(status)[:40]!r}"
    ended: Any = Record if "run_id" in record else PretrainingRecord
    kind = {"failed": FailedRecord, "paused": PausedRecord}.get(status, ended)
    wrong = _unlike(record, kind, "", without=UNREAD if status == "failed" else ()) or _wrong_times(record)
    return wrong if wrong is not None or status == "failed" else _wrong_scores(record["metrics"])


def _wrong_times(record: Mapping[str, Any]) -> str | None:
    for key in ("started", "ended"):
        try:
            datetime.fromtimestamp(record[key])
        except (ValueError, OverflowError, OSError):
            return f"{key} is {record[key]:g}, which is no time"
    return None


def _wrong_scores(metrics: Mapping[str, Any]) -> str | None:
    if not isinstance(metrics.get("primary"), str) or "validation" not in metrics:
        return "metrics has no primary metric or no validation scores"
    for split, scores in split_scores(dict(metrics)).items():
        if (wrong := _unlike(scores, SplitScores, f"metrics.{split}")) is not None:
            return wrong
        for at, values in cast(Mapping[str, Any], scores).items():
            if values is not None and (type(values.get("step")) is not int or metrics["primary"] not in values):
                return f"metrics.{split}.{at} has no step or no {metrics['primary']}"
    return None


def _unlike(value: Any, kind: Any, where: str, *, without: tuple[str, ...] = ()) -> str | None:
    """Where and how the value differs from a type of `loralab.store.record`; None if it does not."""
    if kind is Any:
        return None
    if is_typeddict(kind):
        return _unlike_typed(value, kind, where, without)
    origin, inside = get_origin(kind), get_args(kind)
    if origin is Literal:
        return None if value in inside else f"{where} is {str(value)[:40]!r}"
    if origin is UnionType:
        return None if any(_unlike(value, each, where) is None for each in inside) else f"{where} has another type"
    plain = origin or kind
    right = isinstance(value, (int, float) if plain is float else plain) and not isinstance(value, bool)
    if not right:
        return f"{where} is not {_WORDS[plain]}"
    items = enumerate(value) if plain is list else value.items() if plain is dict else ()
    return next((w for k, v in items if (w := _unlike(v, inside[-1], f"{where}.{k}")) is not None), None)


def _unlike_typed(value: Any, kind: Any, where: str, without: tuple[str, ...]) -> str | None:
    if not isinstance(value, dict):
        return f"{where} is not an object"
    for key, of in _hints(kind).items():
        name = f"{where}.{key}".lstrip(".")
        needed = get_origin(of) is not NotRequired
        if key in without or (key not in value and not needed):
            continue
        if key not in value:
            return f"it lacks {name}"
        if (wrong := _unlike(value[key], of if needed else get_args(of)[0], name)) is not None:
            return wrong
    return None


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)
