"""Formatting for people: lines, columns, bold, numbers, counts and durations. Imports nothing from loralab."""

import math
import os
import re
from collections.abc import Iterable, Sequence
from typing import TextIO

__all__ = ["align", "bold", "clock", "count", "figure", "finite", "printed", "reason", "shown"]

# The longest line that is printed, in characters, of texts that come from files, arguments and libraries.
LONGEST = 1_000
# Controls of terminals (C0, DEL, C1), the space and the hyphen that look like others, marks that change the direction
# of a text, and halves of surrogate pairs.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\xa0\xad\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def shown(text: str, *, longest: int | None = LONGEST) -> str:
    """The text as one line for a terminal: its lines joined, controls as \\x1b, the middle of a long one left out.

    A file's text can otherwise move the cursor, clear the screen, or reverse what is read.
    """
    lines = text.splitlines()
    if len(lines) > 1:
        text = " ".join(line.strip() for line in lines if line.strip())
    text = _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text.rstrip("\r\n"))
    if longest is None or len(text) <= longest:
        return text
    left = (longest - 3) // 2
    return f"{text[:left]}...{text[len(text) - (longest - 3 - left) :]}"


def reason(error: BaseException) -> str:
    """The first line of a foreign error's text, at most 300 characters, since some libraries print a whole config.

    After its class, unless that is a plain OSError, ValueError or RuntimeError.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = shown(lines[0], longest=300) if lines else ""
    if type(error) in (OSError, ValueError, RuntimeError, Exception) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def printed(lines: Iterable[str]) -> str:
    """Several lines for `print`, each as `shown`, uncut."""
    return "\n".join(shown(line, longest=None) for line in lines)


def align(rows: Sequence[Sequence[str]], *, text: int = 1) -> list[str]:
    """The rows as lines, columns two spaces apart: the first `text` columns left-aligned, the others right-aligned.

    Cells are as `shown`.
    """
    rows = [[shown(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            c.ljust(w) if i < text else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def bold(text: str, stream: TextIO) -> str:
    """The text in bold, if the stream is a terminal and NO_COLOR is unset (no-color.org)."""
    if not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[1m{text}\x1b[0m"


def figure(value: float | None) -> str:
    """Four decimals; a dash for a missing number."""
    return "-" if value is None else f"{value:.4f}"


def count(n: int, what: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{n} {what}{'' if n == 1 else 's'}"


def clock(seconds: float) -> str:
    """`45 s`, `3 min`, `1 h 20 min`, `2 d 3 h`: the two largest units, rounded."""
    if round(seconds) < 60:
        return f"{math.ceil(seconds) if seconds < 1 else round(seconds)} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        large, small, units = *divmod(minutes, 60), ("h", "min")
    else:
        large, small, units = *divmod(round(seconds / 3600), 24), ("d", "h")
    return f"{large} {units[0]}" + (f" {small} {units[1]}" if small else "")


def finite(value: float | None) -> float | None:
    """None for a missing, infinite or undefined number: JSON has no value for them."""
    return value if value is not None and math.isfinite(value) else None
