"""Reads columns of the user's data (csv, tsv, json, json lines, xlsx, parquet, folders of it); errors name the row."""

import difflib
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loralab.errors import UserError
from loralab.tasks.delimited import read_records
from loralab.text import reason, shown

__all__ = ["SUFFIXES", "Table", "existing", "files_of", "read_table"]


@dataclass(frozen=True)
class Table:
    """Some columns of a file; `where[i]` is the position of row i for messages: its line, or else its row from 1.

    csv cells are str; those of other files have the types of the file, None for null.
    """

    path: Path
    columns: dict[str, list[Any]]
    where: list[str]

    def __len__(self) -> int:
        return len(self.where)


def existing(key: str, path: str) -> Path:
    """The existing file of a known suffix, or folder of parquet files; `key` is its setting, for messages."""
    file = Path(os.path.expanduser(path))  # noqa: PTH111  # Path.expanduser raises for an unknown ~user
    named = shown(path, longest=200)
    try:
        if file.is_dir() and files_of(file):
            return file
        if file.suffix.lower() not in SUFFIXES:
            is_folder = "; this folder has no .parquet file" if file.is_dir() else ""
            raise UserError(f"{key}: '{named}' must end in one of {', '.join(SUFFIXES)}{is_folder}")
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
    if path.is_dir():
        return _joined(path, [read_table(file, columns) for file in files_of(path)])
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


def files_of(path: Path) -> list[Path]:
    """The file itself, or a folder's parquet files in the order of their names."""
    return sorted(path.glob("*.parquet")) if path.is_dir() else [path]


def _joined(path: Path, tables: Sequence[Table]) -> Table:
    cells = {column: [cell for table in tables for cell in table.columns[column]] for column in tables[0].columns}
    return Table(path, cells, [f"{table.path.name}, {where}" for table in tables for where in table.where])


def _csv(delimiter: str) -> Callable[[Path, dict[str, str]], Table]:
    def read(path: Path, columns: dict[str, str]) -> Table:
        found = read_records(str(path), _text(path), delimiter, columns)
        if not found.names:
            raise UserError(f"{path}: is empty; its first line must name the columns")
        _require(path, columns, found.names)
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


def _json(path: Path, columns: dict[str, str]) -> Table:
    """A list of objects; a file that begins with an object has one in each line."""
    text = _text(path)
    if text.lstrip()[:1] == "{":
        return _json_lines(path, columns)
    try:
        records = json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: malformed JSON ({error.msg}, column {error.colno})") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: JSON that cannot be read ({error})") from None
    if not isinstance(records, list):
        raise UserError(f"{path}: holds a JSON {type(records).__name__}; it must be a list of objects")
    where = [f"row {row}" for row in range(1, len(records) + 1)]
    for at, record in zip(where, records, strict=True):
        _check_object(path, columns, record, at)
    return Table(path, {column: [record[column] for record in records] for column in columns}, where)


def _json_lines(path: Path, columns: dict[str, str]) -> Table:
    cells: dict[str, list[Any]] = {column: [] for column in columns}
    where = []
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line, object_pairs_hook=_object)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number}: malformed JSON ({error.msg}, column {error.colno})") from None
        except (ValueError, RecursionError) as error:  # a number with thousands of digits, or very deep nesting
            raise UserError(f"{path}, line {number}: JSON that cannot be read ({error})") from None
        _check_object(path, columns, record, f"line {number}")
        for column in columns:
            cells[column].append(record[column])
        where.append(f"line {number}")
    return Table(path, cells, where)


def _check_object(path: Path, columns: dict[str, str], record: Any, where: str) -> None:
    """Raises UserError for what is no object, for a missing column, and for one that is there more than once."""
    if not isinstance(record, dict):
        raise UserError(f"{path}, {where}: holds a JSON {type(record).__name__}; each row must be an object")
    if isinstance(record, _Repeated) and (twice := record.keys_twice & set(columns)):
        column = min(twice)
        raise UserError(f"{path}, {where}: has '{shown(column)}' more than once; keep one")
    _require(path, columns, list(record), at=f", {where}")


def _xlsx(path: Path, columns: dict[str, str]) -> Table:
    """The first sheet; its first row names the columns."""
    import pandas as pd

    try:
        frame = pd.read_excel(path, header=None, dtype=object, keep_default_na=False)
    except ImportError:
        raise UserError(f"{path}: needs openpyxl; run: pip install openpyxl") from None
    except OSError:
        raise
    except Exception as error:  # the reader of a foreign file: a damaged one ends in errors of many classes
        raise UserError(f"{path}: cannot be read as xlsx ({reason(error)})") from None
    frame = frame[(frame.notna() & (frame != "")).any(axis=1)]
    names = [str(name) for name in frame.iloc[0]] if len(frame) else []
    _require(path, columns, names)
    rows = frame.iloc[1:]
    cells = {column: rows.iloc[:, names.index(column)].tolist() for column in columns}
    return Table(path, cells, [f"row {row + 1}" for row in rows.index])


def _parquet(path: Path, columns: dict[str, str]) -> Table:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            _require(path, columns, names)
            found = {name: file.schema_arrow.field(name).type for name in columns}
            _require_cells(path, columns, found)
            table = file.read(columns=list(columns))
            cells = {column: _cells(table.column(column)) for column in columns}
    except UserError:
        raise
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: a column of text has bytes that are not UTF-8 ({error.reason})") from None
    except Exception as error:  # the reader of a foreign file: a damaged one ends in errors of many classes
        raise UserError(f"{path}: cannot be read as parquet ({reason(error)})") from None
    return Table(path, cells, [f"row {row}" for row in range(1, table.num_rows + 1)])


def _require_cells(path: Path, columns: dict[str, str], types: dict[str, Any]) -> None:
    """Raises UserError for a column whose cells are neither text, numbers nor true and false."""
    from pyarrow import types as of

    allowed = (
        of.is_string, of.is_large_string, of.is_string_view, of.is_integer, of.is_floating, of.is_decimal,
        of.is_boolean, of.is_null,
    )  # fmt: skip
    for column, kind in types.items():
        value = kind.value_type if of.is_dictionary(kind) else kind
        if not any(check(value) for check in allowed):
            raise UserError(
                f"{columns[column]}: column '{shown(column)}' of {path} has the type {shown(str(kind))}; allowed: "
                "text, numbers, true and false; write it as text"
            )


def _cells(column: Any) -> list[Any]:
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
    ".json": _json,
    ".xlsx": _xlsx,
    ".parquet": _parquet,
}


def _text(path: Path) -> str:
    """The file's UTF-8 text, without a byte-order mark, with unchanged line ends."""
    content = path.read_bytes()
    if b"\0" in content[:2] or content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UserError(f"{path}: looks like UTF-16, not UTF-8; save the file as UTF-8")
    return content.decode("utf-8-sig")


def _require(path: Path, columns: dict[str, str], names: Sequence[str], *, at: str = "") -> None:
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
