"""Records of csv and tsv text: no row is lost to a stray quotation mark, and the header shows the delimiter.

A quotation mark that opens a field and closes some lines later makes one record of the rows between. Such a record is
refused if each of its lines is a row by itself: it has the header's number of fields and no blank after the delimiter,
as prose has, and most of the lines have values that other rows have, where a column repeats its values. Without such a
column, a file that has the delimiter in quoted fields is trusted.
"""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from loralab.errors import UserError
from loralab.text import shown

__all__ = ["Records", "delimiter_of", "read_records"]

_DELIMITERS = (",", "\t", ";", "|")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_NAMED = re.compile('"?sep=([,;|\t])"?')
_ENOUGH = 10  # records that show whether a column repeats its values
_HINT = 'a field that begins with a quotation mark must end with one, and those inside are doubled ("")'


@dataclass(frozen=True)
class Records:
    """The fields of every record that is not blank; `lines[i]` is the first line of row i, from 1."""

    names: list[str]
    rows: list[list[str]]
    lines: list[int]


class _MalformedError(Exception):
    """A line that cannot be split, with the reason."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line


def read_records(where: str, text: str, delimiter: str, asked: Iterable[str], *, skipped: int = 0) -> Records:
    """The records of a file's text; `where` is the file and `asked` are the columns that must be in its header.

    `delimiter` is the usual one for the file's suffix; another one is used if the header has the columns with it only.
    Tab-separated lines are read without quoting where quoted fields are not valid, or would swallow rows. skipped: the
    lines of the file that the text lacks after its header, which count in the numbers of lines. Raises UserError, with
    the line.
    """
    csv.field_size_limit(2**31 - 1)  # the default of 131,072 characters is too small for long documents
    lines, delimiter = _lines(text, delimiter, wanted := list(asked))
    try:
        try:
            quoted, ends = _quoted(lines, delimiter)
        except _MalformedError as error:
            raise UserError(f"{where}, line {skipped + error.line}: malformed ({error}); {_HINT}") from None
        _check(where, quoted, ends, lines, delimiter, wanted, skipped)
    except UserError:
        plain = _plain(lines) if delimiter == "\t" else None
        if plain is None:
            raise
        _check(where, plain, plain.lines, lines, delimiter, wanted, skipped)
        return plain
    return quoted


def delimiter_of(header: str, usual: str, asked: Iterable[str]) -> str:
    """The delimiter with which `read_records` reads a file that begins with this text."""
    return _lines(header, usual, list(asked))[1]


def _lines(text: str, usual: str, asked: Sequence[str]) -> tuple[list[str], str]:
    """The text's lines, a spreadsheet's own first one as a blank one, and their delimiter.

    It is the first, beginning with the usual one, with which the header has all asked columns. If none has: the usual
    one where it splits the header, else the one that gives the most names.
    """
    lines = list(io.StringIO(text, newline=""))
    named = _NAMED.fullmatch(lines[0].rstrip("\r\n")) if lines else None
    if named is not None:  # blank, so that lines keep their numbers
        lines[0], usual = "\n", named[1]
    names: dict[str, list[str]] = {}
    for delimiter in (usual, *_DELIMITERS):
        try:
            names[delimiter] = next(filter(None, csv.reader(lines, delimiter=delimiter, strict=True)), [])
        except csv.Error:
            names[delimiter] = []
    for delimiter, found in names.items():
        if set(asked) <= set(found):
            return lines, delimiter
    return lines, usual if len(names[usual]) > 1 else max(names, key=lambda delimiter: len(names[delimiter]))


def _quoted(lines: Sequence[str], delimiter: str) -> tuple[Records, list[int]]:
    """The records of lines in which fields may be quoted, and the last line of each row."""
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    records, starts, ends = [], [], []
    start = 1
    while True:
        try:
            row = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            raise _MalformedError(start, str(error)) from None
        if row:
            records.append(row)
            starts.append(start)
            ends.append(reader.line_num)
        start = reader.line_num + 1
    return Records(records[0] if records else [], records[1:], starts[1:]), ends[1:]


def _plain(lines: Sequence[str]) -> Records | None:
    """The lines split at tabs, without quoting; None where some fields are quoted, or the numbers of fields differ."""
    split = [(i, line.rstrip("\r\n").split("\t")) for i, line in enumerate(lines, start=1) if line.strip("\r\n")]
    names = split[0][1]
    for _, fields in split:
        if len(fields) != len(names) or any(_is_quoted(field) and '""' in field[1:-1] for field in fields):
            return None
    if any(map(_is_quoted, names)):
        return None
    return Records(names, [fields for _, fields in split[1:]], [line for line, _ in split[1:]])


def _is_quoted(field: str) -> bool:
    return len(field) > 1 and field[0] == field[-1] == '"'


def _check(
    where: str,
    found: Records,
    ends: Sequence[int],
    lines: Sequence[str],
    delimiter: str,
    asked: Sequence[str],
    skipped: int,
) -> None:
    """Raises UserError for swallowed rows, a record with another number of fields, and a repeated header.

    A header without an asked column is left to the caller, who names what it lacks.
    """
    if not set(asked) <= set(found.names):
        return
    width = len(found.names)
    columns = [_Column(found.names.index(name), found.rows) for name in asked]
    told = any(column.repeats or column.numbers for column in columns)
    suspect = told or not _has_quoted_delimiters(found, ends, lines, delimiter)
    for row, first, last in zip(found.rows, found.lines, ends, strict=True):
        start, end = first + skipped, last + skipped
        if suspect and last > first and _are_rows(lines[first - 1 : last], delimiter, width, columns):
            raise UserError(
                f"{where}, lines {start} to {end}: a quotation mark opens a field on line {start} and closes it on "
                f"line {end}, but each of these lines is a row of {width} fields by itself; {_HINT}"
            )
        if len(row) != width:
            many = "" if end == start else f", up to line {end},"
            split = "" if delimiter in ",\t" else f" separated by '{delimiter}'"
            raise UserError(f"{where}, line {start}: has{many} {len(row)} fields{split}, and the header has {width}")
        if row == found.names:
            raise UserError(
                f"{where}, line {start}: repeats the header ({shown(', '.join(row), longest=200)}); remove the line"
            )


def _has_quoted_delimiters(found: Records, ends: Sequence[int], lines: Sequence[str], delimiter: str) -> bool:
    """Whether a record of one line has the delimiter in a quoted field: a csv writer made it, which quotes rightly."""
    width = len(found.names)
    return any(
        start == end and len(row) == width and lines[start - 1].count(delimiter) >= width
        for row, start, end in zip(found.rows, found.lines, ends, strict=True)
    )


class _Column:
    """What the cells of a column have in common."""

    def __init__(self, at: int, rows: Sequence[Sequence[str]]) -> None:
        cells = [row[at] for row in rows if at < len(row)]
        self.at = at
        self.known = {_bare(cell) for cell in cells}
        self.repeats = len(cells) >= _ENOUGH and 2 * len(self.known) <= len(cells)
        self.numbers = bool(cells) and all(_NUMBER.fullmatch(cell) for cell in self.known)
        self.spaced = any(cell[:1].isspace() for cell in cells)

    def allows(self, cell: str) -> bool:
        if self.numbers:
            return _NUMBER.fullmatch(_bare(cell)) is not None
        return _bare(cell) != "" and (self.spaced or not cell[:1].isspace())


def _bare(cell: str) -> str:
    return cell.strip().strip('"').strip()


def _are_rows(lines: Sequence[str], delimiter: str, width: int, columns: Sequence[_Column]) -> bool:
    """Whether each line is a row by itself, and most have a value that other rows have where values repeat."""
    repeating = [column for column in columns if column.repeats]
    known = 0
    for line in lines:
        text = line.rstrip("\r\n")
        fields = text.split(delimiter) if text.count('"') % 2 else next(csv.reader([text], delimiter=delimiter), [])
        if len(fields) != width or width == 1 or not all(column.allows(fields[column.at]) for column in columns):
            return False
        known += any(_bare(fields[column.at]) in column.known for column in repeating)
    return not repeating or 2 * known > len(lines)
