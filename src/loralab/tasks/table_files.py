"""Reads columns of the user's data files (csv, tsv, json lines, parquet); every error names file and line."""

import difflib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loralab.errors import UserError
from loralab.tasks.delimited import read_records
from loralab.text import shown

__all__ = ["SUFFIXES", "Table", "arrow_cells", "existing", "json_row", "read_table", "require", "require_cells"]


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


def existing(key: str, path: str, suffixes: Iterable[str] | None = None) -> Path:
    """The existing file at `path`, of a known suffix; `key` is its setting, for messages."""
    file = Path(os.path.expanduser(path))  # noqa: PTH111  # Path.expanduser raises for an unknown ~user
    named = shown(path, longest=200)
    allowed = tuple(SUFFIXES if suffixes is None else suffixes)
    if file.suffix.lower() not in allowed:
        raise UserError(f"{key}: '{named}' must end in one of {', '.join(allowed)}")
    try:
        if file.is_file():
            return file
        siblings = [sibling.name for sibling in file.parent.iterdir()] if file.parent.is_dir() else []
    except OSError as error:
        raise UserError(f"{key}: '{named}' cannot be read ({error.strerror})") from None
    near = difflib.get_close_matches(file.name, siblings, n=1)
    found = "is a directory" if file.is_dir() else "is not a regular file" if file.exists() else "does not exist"
    hint = f"; did you mean '{shown(str(file.parent / near[0]))}'?" if near and near[0] != file.name else ""
    raise UserError(f"{key}: '{named}' {found} (looked in {shown(os.path.abspath(file.parent))}){hint}")  # noqa: PTH100  # Path.resolve raises for links in a circle


def read_table(path: Path, columns: dict[str, str]) -> Table:
    """The named columns of a file, {column: the setting that names it}; a file without rows raises UserError."""
    try:
        table = SUFFIXES[path.suffix.lower()](path, columns)
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"{path}, line {line}: not UTF-8 ({error.reason}); save the file as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    if not len(table):
        raise UserError(f"{path}: has no rows")
    return table


def _csv(delimiter: str) -> Callable[[Path, dict[str, str]], Table]:
    def read(path: Path, columns: dict[str, str]) -> Table:
        found = read_records(str(path), _text(path), delimiter, columns)
        if not found.names:
            raise UserError(f"{path}: is empty; its first line must name the columns")
        require(path, columns, found.names)
        at = {column: found.names.index(column) for column in columns}
        cells: dict[str, list[Any]] = {column: [row[index] for row in found.rows] for column, index in at.items()}
        return Table(path, cells, [f"line {line}" for line in found.lines])

    return read


class _Repeated(dict[str, Any]):
    """A JSON object that has keys more than once: `keys_twice`."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.keys_twice = {key for key, count in Counter(key for key, _ in pairs).items() if count > 1}


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else _Repeated(pairs)


def _json_lines(path: Path, columns: dict[str, str]) -> Table:
    cells: dict[str, list[Any]] = {column: [] for column in columns}
    where = []
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        record = json_row(path, number, line, columns)
        for column in columns:
            cells[column].append(record[column])
        where.append(f"line {number}")
    return Table(path, cells, where)


def json_row(path: Path, number: int, line: str, columns: Mapping[str, str]) -> dict[str, Any]:
    """The object on a line of json lines; raises UserError unless it has the columns, each once."""
    try:
        record = json.loads(line, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {number}: malformed JSON ({error.msg}, column {error.colno})") from None
    except (ValueError, RecursionError) as error:  # a number with thousands of digits, or very deep nesting
        raise UserError(f"{path}, line {number}: JSON that cannot be read ({error})") from None
    if not isinstance(record, dict):
        raise UserError(f"{path}, line {number}: holds a JSON {type(record).__name__}; each line must be an object")
    if isinstance(record, _Repeated) and (twice := record.keys_twice & set(columns)):
        column = min(twice)
        raise UserError(f"{path}, line {number}: has '{shown(column)}' more than once; keep one")
    require(path, columns, list(record), at=f", line {number}")
    return record


def _parquet(path: Path, columns: dict[str, str]) -> Table:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            require_cells(path, columns, file.schema_arrow)
            table = file.read(columns=list(columns))
            cells = {column: arrow_cells(table.column(column)) for column in columns}
    except UserError:
        raise
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: a column of text has bytes that are not UTF-8 ({error.reason})") from None
    except Exception as error:  # the reader of a foreign file: a damaged one ends in errors of many classes
        reason = shown((str(error) or type(error).__name__).splitlines()[0])
        raise UserError(f"{path}: cannot be read as parquet ({reason})") from None
    return Table(path, cells, [f"row {row}" for row in range(1, table.num_rows + 1)])


def require_cells(path: Path, columns: Mapping[str, str], schema: Any) -> None:
    """Raises UserError unless a parquet file has the columns, of text, numbers, or true and false."""
    from pyarrow import types as of

    require(path, columns, schema.names)
    allowed = (
        of.is_string, of.is_large_string, of.is_string_view, of.is_integer, of.is_floating, of.is_decimal,
        of.is_boolean, of.is_null,
    )  # fmt: skip
    for column in columns:
        kind = schema.field(column).type
        value = kind.value_type if of.is_dictionary(kind) else kind
        if not any(check(value) for check in allowed):
            raise UserError(
                f"{columns[column]}: column '{shown(column)}' of {path} has the type {shown(str(kind))}; allowed: "
                "text, numbers, true and false; write it as text"
            )


def arrow_cells(column: Any) -> list[Any]:
    """The column's cells as str, int, float, bool or None; a float of few digits has those of its own precision."""
    from pyarrow import types as of

    if of.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    cells: list[Any] = column.to_pylist()
    if of.is_decimal(column.type):
        return [
            cell if cell is None else int(cell) if cell == cell.to_integral_value() else float(cell) for cell in cells
        ]
    if of.is_float16(column.type) or of.is_float32(column.type):  # 0.1, not 0.10000000149011612
        short = np.float16 if of.is_float16(column.type) else np.float32
        return [None if cell is None else float(str(short(cell))) for cell in cells]
    return cells


SUFFIXES: dict[str, Callable[[Path, dict[str, str]], Table]] = {
    ".csv": _csv(","),
    ".tsv": _csv("\t"),
    ".jsonl": _json_lines,
    ".parquet": _parquet,
}


def _text(path: Path) -> str:
    """The file's UTF-8 text, without a byte-order mark, with unchanged line ends."""
    content = path.read_bytes()
    if b"\0" in content[:2] or content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UserError(f"{path}: looks like UTF-16, not UTF-8; save the file as UTF-8")
    return content.decode("utf-8-sig")


def require(path: Path, columns: Mapping[str, str], names: Sequence[str], *, at: str = "") -> None:
    """Raises UserError, with the columns there are, unless each of `columns` is there once."""
    for column, key in columns.items():
        if column not in names:
            near = difflib.get_close_matches(column, names, n=1)
            hint = f"; did you mean '{shown(near[0])}'?" if near else ""
            there = shown(", ".join(names), longest=200) or "none"
            raise UserError(f"{key}: {path}{at} has no column '{shown(column)}'; its columns: {there}{hint}")
        if names.count(column) > 1:
            raise UserError(
                f"{key}: {path} has {names.count(column)} columns named '{shown(column)}'; rename all but one"
            )
