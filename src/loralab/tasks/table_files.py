"""Reads columns of the user's data files (csv, tsv, json lines, parquet); every error names file and line."""

import csv
import difflib
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loralab.errors import UserError

__all__ = ["SUFFIXES", "Table", "existing", "read_table"]


@dataclass(frozen=True)
class Table:
    """Some columns of a file; `where[i]` is the position of row i for messages: its line, or in parquet its row from 1.

    csv cells are str; json and parquet cells have the types of the file, None for null.
    """

    path: Path
    columns: dict[str, list[Any]]
    where: list[str]

    def __len__(self) -> int:
        return len(self.where)


def existing(key: str, path: str) -> Path:
    """The existing file at `path`, of a known suffix; `key` is its setting, for messages."""
    file = Path(os.path.expanduser(path))  # noqa: PTH111  # Path.expanduser raises for an unknown ~user
    if file.suffix.lower() not in SUFFIXES:
        raise UserError(f"{key}: '{path}' must end in one of {', '.join(SUFFIXES)}")
    if not file.is_file():
        siblings = [sibling.name for sibling in file.parent.iterdir()] if file.parent.is_dir() else []
        near = difflib.get_close_matches(file.name, siblings, n=1)
        found = "is a directory" if file.is_dir() else "does not exist"
        hint = f"; did you mean '{file.parent / near[0]}'?" if near else ""
        raise UserError(f"{key}: '{path}' {found} (looked in {file.parent.resolve()}){hint}")
    return file


def read_table(path: Path, columns: dict[str, str]) -> Table:
    """The named columns of a file, {column: the setting that names it}; a file without rows raises UserError."""
    try:
        table = SUFFIXES[path.suffix.lower()](path, columns)
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"{path}, line {line}: not UTF-8 ({error.reason}); save the file as UTF-8") from None
    if not len(table):
        raise UserError(f"{path}: has no rows")
    return table


def _csv(delimiter: str) -> Callable[[Path, dict[str, str]], Table]:
    def read(path: Path, columns: dict[str, str]) -> Table:
        records = _records(path, delimiter)
        header = next(records, None)
        if header is None:
            raise UserError(f"{path}: is empty; its first line must name the columns")
        names = header[1]
        _require(path, columns, names)
        at = {column: names.index(column) for column in columns}
        cells: dict[str, list[Any]] = {column: [] for column in columns}
        where = []
        for line, row in records:
            if len(row) != len(names):
                raise UserError(f"{path}, line {line}: has {len(row)} fields, and the header has {len(names)}")
            for column, index in at.items():
                cells[column].append(row[index])
            where.append(f"line {line}")
        return Table(path, cells, where)

    return read


def _records(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yields (first line, fields) of every record that is not blank."""
    csv.field_size_limit(2**31 - 1)  # the default of 131,072 characters is too small for long documents
    reader = csv.reader(io.StringIO(_text(path), newline=""), delimiter=delimiter, strict=True)
    start = 1
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise UserError(f"{path}, line {start}: malformed ({error})") from None
        if row:
            yield start, row
        start = reader.line_num + 1


def _json_lines(path: Path, columns: dict[str, str]) -> Table:
    cells: dict[str, list[Any]] = {column: [] for column in columns}
    where = []
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number}: malformed JSON ({error.msg}, column {error.colno})") from None
        except (ValueError, RecursionError) as error:  # a number with thousands of digits, or very deep nesting
            raise UserError(f"{path}, line {number}: JSON that cannot be read ({error})") from None
        if not isinstance(record, dict):
            raise UserError(f"{path}, line {number}: holds a JSON {type(record).__name__}; each line must be an object")
        _require(path, columns, list(record), at=f", line {number}")
        for column in columns:
            cells[column].append(record[column])
        where.append(f"line {number}")
    return Table(path, cells, where)


def _parquet(path: Path, columns: dict[str, str]) -> Table:
    import pyarrow
    import pyarrow.parquet

    try:
        _require(path, columns, pyarrow.parquet.read_schema(path).names)
        table = pyarrow.parquet.read_table(path, columns=list(columns))
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: cannot be read as parquet ({str(error).splitlines()[0]})") from None
    cells = {column: table.column(column).to_pylist() for column in columns}
    return Table(path, cells, [f"row {row}" for row in range(1, table.num_rows + 1)])


SUFFIXES: dict[str, Callable[[Path, dict[str, str]], Table]] = {
    ".csv": _csv(","),
    ".tsv": _csv("\t"),
    ".jsonl": _json_lines,
    ".parquet": _parquet,
}


def _text(path: Path) -> str:
    """The file's UTF-8 text, without a byte-order mark, with unchanged line ends."""
    return path.read_bytes().decode("utf-8-sig")


def _require(path: Path, columns: dict[str, str], names: Sequence[str], *, at: str = "") -> None:
    for column, key in columns.items():
        if column not in names:
            near = difflib.get_close_matches(column, names, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise UserError(f"{key}: {path}{at} has no column '{column}'; its columns: {', '.join(names)}{hint}")
        if names.count(column) > 1:
            raise UserError(f"{key}: {path} has {names.count(column)} columns named '{column}'; rename all but one")
