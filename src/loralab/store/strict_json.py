"""JSON as a run's files have it: RFC 8259, which has no NaN, with numbers that fit 64 bits."""

import json
import math
from typing import Any, NoReturn

__all__ = ["parse"]

LARGEST = 2**64  # of whole numbers: Python's JSON has no limit, and a float or an array cannot hold larger ones


def parse(text: bytes) -> Any:
    """The value, with `?` for halves of surrogate pairs, which no UTF-8 file or table can hold.

    Raises ValueError for other texts, and RecursionError for one that is nested too deeply.
    """
    value = json.loads(text, parse_constant=_refuse, parse_int=_whole, parse_float=_finite)
    if b"\\ud" in text or b"\\uD" in text:
        value = json.loads(json.dumps(value, ensure_ascii=False).encode(errors="replace"))
    return value


def _whole(text: str) -> int:
    number = int(text)
    return number if abs(number) < LARGEST else _refuse(text)


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(text)


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"it has {text if len(text) < 20 else f'{text[:16]}...'} for a number")
