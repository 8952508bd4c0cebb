"""Values on Hydra's command line: writing a value, reading an override, listing the values of a sweep's axis.

Hydra's parser takes 0.1 s to import, so it is imported when the first override is read.
"""

import math
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from loralab.config.checks import brief
from loralab.errors import UserError

if TYPE_CHECKING:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Override


__all__ = [
    "LARGEST_SWEEP", "check_size", "expand_logspace", "listed", "name_of", "read", "settings", "size_of", "to_override",
    "values_of",
]  # fmt: skip

LARGEST_SWEEP = 100_000
"""Jobs of one sweep: far more than a person means to train, and few enough to be listed in a second."""


# Strings that need no quotes, except the words below, which Hydra would read as other types.
_PLAIN = re.compile(r"[A-Za-z0-9_./:@+*?-]+")
_WORDS = {"true", "false", "null"}
# Quoted strings, which are left alone, or logspace(...).
_LOGSPACE = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|\blogspace\(([^()]*)\)""")
# Significant digits of the floats of a range: range(0.1,0.4,0.1) contains 0.3, not 0.30000000000000004.
_RANGE_DIGITS = 12


def to_override(value: Any) -> str:
    """The value in the syntax of Hydra's command line: floats in their shortest exact form, whole ones as integers.

    Equal values have equal texts: 1e-3 and 0.001, 16 and 16.0. Different types do not: 1 and true, 16 and '16' (a
    string that Hydra would read as another type is quoted).
    """
    if hasattr(value, "item"):  # a numpy scalar, from a table
        value = value.item()
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(to_override, value)) + "]"
    if isinstance(value, Mapping):
        from loralab.compat.hydra import escape

        return "{" + ",".join(f"{escape(str(k))}:{to_override(v)}" for k, v in value.items()) + "}"
    if isinstance(value, float):
        if value.is_integer() and abs(value) < 1e15:
            return str(int(value))
        return f"{value:g}" if float(f"{value:g}") == value else repr(float(value))
    if not isinstance(value, str):
        return str(value)
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS and not _is_number(value):
        return value
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(value, Quote.single).with_quotes()


def expand_logspace(argument: str) -> str:
    """`optim.lr=logspace(1e-4,1e-2,5)` -> `optim.lr=0.0001,0.000316,0.001,0.00316,0.01`; other arguments unchanged.

    logspace(start,stop,num): num values with a constant ratio. The ends are exact; the values between are rounded to 3
    significant digits, so that the same grid written differently has the same runs.
    """
    key, equals, value = argument.partition("=")
    if not equals or key.startswith("-"):
        return argument
    return f"{key}={_expanded(value, where=key.lstrip('+'))}"


def listed(value: Any, key: str, where: str) -> list[Any]:
    """The values that a sweep's file lists for a key, as a YAML list, one value, or in command-line syntax.

    where: the position in the file, for errors.
    """
    if isinstance(value, Mapping):
        raise UserError(
            f"{where}: got a mapping; write dotted keys ({key}.KEY: [...]), or [{{...}}] for a value that is a mapping"
        )
    if isinstance(value, str):
        from hydra.errors import HydraException

        try:
            override = _parser().parse_override(f"{key}={_expanded(value, where)}")
        except HydraException as error:
            raise UserError(
                f"{where}: got {value!r}, which Hydra cannot read; write a YAML list, or text such as 0,1,2 or "
                "range(3) or logspace(1e-4,1e-2,5)"
            ) from error
        return values_of(override, where)
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return _some(values, where, got=value)


@lru_cache(maxsize=10_000)
def read(argument: str) -> "Override":
    """Parses one argument with Hydra's parser; raises OverrideParseException where that fails."""
    return _parser().parse_overrides([argument])[0]


def name_of(override: "Override") -> str:
    """The key or group without + and ~, which names an axis."""
    return override.get_key_element().lstrip("+~")


def values_of(override: "Override", where: str) -> list[Any]:
    """The values that an override lists, as plain Python; shuffle() has no effect, since the scheduler orders runs."""
    from hydra.core.override_parser.types import ChoiceSweep, RangeSweep

    value = override.value()
    if not override.is_sweep_override():
        return [value]
    if override.is_interval_sweep():
        raise UserError(
            f"{where}: got {override.get_value_string()}, which lists no values; list them, or write "
            "range(start,stop,step) or logspace(start,stop,num)"
        )
    check_size(size_of(override, where), f"{where}: got {_text(override)}, which")
    found: list[Any]
    if isinstance(value, ChoiceSweep):
        found = [_plain(each) for each in value.list]
    elif isinstance(value, RangeSweep):
        found = [float(f"{x:.{_RANGE_DIGITS}g}") if isinstance(x, float) else x for x in value.range()]
    else:
        found = _options(override, where)
    return _some(found, where, got=override.get_value_string())


def size_of(override: "Override", where: str) -> int:
    """The number of values that an override lists, without listing them (of a range of fractions, up to one more).

    1 where it lists none. Raises UserError for a range without end.
    """
    from hydra.core.override_parser.types import ChoiceSweep, RangeSweep

    value = override.value()
    if isinstance(value, ChoiceSweep):
        return len(value.list)
    if not isinstance(value, RangeSweep):
        return 1
    assert value.start is not None and value.stop is not None
    got = f"{where}: got {_text(override)}"
    ends = (value.start, value.stop, value.step)
    if not all(math.isfinite(each) for each in ends):
        raise UserError(f"{got}; a range's start, stop and step are finite numbers")
    if value.step == 0:
        raise UserError(f"{got}, whose step is 0; give it another")
    start, stop, step = (Fraction(each) for each in ends)  # exact: a quotient of floats may overflow
    return max(0, math.ceil((stop - start) / step))


def check_size(jobs: int, what: str) -> None:
    """Raises UserError for a sweep of more than LARGEST_SWEEP jobs; what: has this many."""
    if jobs > LARGEST_SWEEP:
        number = f"{jobs:,}" if jobs < 10**15 else "more than 10^15"
        raise UserError(f"{what} has {number} values; a sweep has at most {LARGEST_SWEEP:,} jobs: list fewer")


def _text(override: "Override") -> str:
    """The value as it is written, without the middle of a long one."""
    return brief(override.get_value_string())[1:-1]


def settings(job: Sequence[str]) -> dict[str, Any]:
    """Key (without +) -> value of a job's overrides; deletions (~key) are left out."""
    overrides = [read(argument) for argument in job]
    return {name_of(o): o.value() for o in overrides if not o.is_delete() and not o.is_sweep_override()}


def _plain(value: Any) -> Any:
    """A parsed value as plain Python, without quotes."""
    from hydra.core.override_parser.types import QuotedString

    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {_plain(key): _plain(each) for key, each in value.items()}
    return value.text if isinstance(value, QuotedString) else value


def _options(override: "Override", where: str) -> list[Any]:
    """The options of a group that match glob(...); Hydra must be initialised."""
    from hydra.core.global_hydra import GlobalHydra

    if not GlobalHydra.instance().is_initialized():
        raise UserError(
            f"{where}: got {override.get_value_string()}, which only a running Hydra can list; name the options"
        )
    override.config_loader = GlobalHydra.instance().config_loader()
    return list(override.sweep_iterator())


def _some(values: list[Any], where: str, *, got: Any) -> list[Any]:
    if not values:
        raise UserError(f"{where}: got {got}, which has no values; give it at least one")
    return values


def _expanded(text: str, where: str) -> str:
    def one(found: re.Match[str]) -> str:
        return found[0] if found[1] is None else ",".join(map(to_override, _logspace(found[1], where)))

    return _LOGSPACE.sub(one, text)


def _logspace(text: str, where: str) -> list[float]:
    got = f"{where}: got logspace({text})"
    try:
        start, stop, num = text.split(",")
        first, last, count = float(start), float(stop), int(num)
    except ValueError:
        raise UserError(f"{got}; it takes two bounds and a whole number of values, as logspace(1e-4,1e-2,5)") from None
    if not (0 < first < math.inf and 0 < last < math.inf):
        raise UserError(f"{got}; both bounds must be positive numbers")
    if count < 1:
        raise UserError(f"{got}; the number of values must be at least 1")
    check_size(count, f"{got}, which")
    step = (math.log(last) - math.log(first)) / max(1, count - 1)
    between = [float(f"{math.exp(math.log(first) + step * i):.3g}") for i in range(1, count - 1)]
    values = [first, *between, last][:count]
    if len(set(values)) < count:
        raise UserError(f"{got}; these are not {count} different values of 3 significant digits; take fewer")
    return values


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@cache
def _parser() -> "OverridesParser":
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create()
