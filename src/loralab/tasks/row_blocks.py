"""The rows of a data file, block by block, and the same file with more columns: csv, tsv, json lines, parquet, text.

A block has at most BLOCK rows, so that a file larger than memory, or a pipe, is read. Text has one text a line.
"""

import contextlib
import csv
import itertools
import json
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from loralab.errors import UserError
from loralab.files import atomic_path
from loralab.tasks.delimited import delimiter_of, read_records
from loralab.tasks.table_files import Table, arrow_cells, existing, json_row, require, require_cells
from loralab.text import shown

__all__ = ["FORMATS", "Block", "RowFile", "open_rows", "output"]

BLOCK = 2_048  # texts whose lengths are sorted together: 32 batches of 64, for little padding
LONGEST = 2**24  # characters of a record of csv; a stray quotation mark would otherwise read the whole file into one

Added = Mapping[str, type]
"""New column -> str or float."""


@dataclass(frozen=True)
class Block:
    """Consecutive rows. table: the columns that were asked for; names: of all columns; rows: whole, as in the file."""

    table: Table
    names: list[str]
    rows: Any


class RowFile(ABC):
    """A file that is read once. columns: those asked for, with the option that names each, for messages."""

    def __init__(self, path: Path, stream: BinaryIO, columns: Mapping[str, str]) -> None:
        self.path, self.stream, self.columns = path, stream, columns
        self.size = path.stat().st_size if path.is_file() else None
        self.block = 1 if stream.isatty() else BLOCK  # whoever types a text gets its answer

    @abstractmethod
    def blocks(self) -> Iterator[Block]:
        """Every row; raises UserError, with file and line, where one cannot be read."""

    @abstractmethod
    def put(self, out: Any, block: Block, new: Mapping[str, list[Any]], types: Added) -> None:
        """Writes a block with the `new` columns; out: a stream of text, of bytes for parquet."""

    def share(self) -> float | None:
        """The share of the file that is read; None where its size is not known."""
        return self.stream.tell() / self.size if self.size else None

    def _lines(self) -> Iterator[tuple[int, str]]:
        """The numbers and texts of the lines, with their ends."""
        for number, line in enumerate(self.stream, start=1):
            if number == 1 and (b"\0" in line[:2] or line[:2] in (b"\xff\xfe", b"\xfe\xff")):
                raise UserError(f"{self.path}: looks like UTF-16, not UTF-8; save the file as UTF-8")
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                reason = f"not UTF-8 ({error.reason}); save the file as UTF-8"
                raise UserError(f"{self.path}, line {number}: {reason}") from None


class _Delimited(RowFile):
    USUAL = ","
    delimiter, begun = USUAL, False

    def blocks(self) -> Iterator[Block]:
        lines = _Taken(line for _, line in self._lines())
        header = self._header(lines)
        self.delimiter = delimiter_of(header, self.USUAL, self.columns)
        skipped = 0
        while text := lines.records(self.block, self.delimiter):
            found = read_records(str(self.path), header + text, self.USUAL, self.columns, skipped=skipped)
            cells = {column: [row[found.names.index(column)] for row in found.rows] for column in self.columns}
            where = [f"line {line + skipped}" for line in found.lines]
            if found.rows:  # blank lines are none
                yield Block(Table(self.path, cells, where), found.names, found.rows)
            skipped += lines.count

    def _header(self, lines: "_Taken") -> str:
        """The file's text up to the line that names the columns."""
        text = ""
        for line in lines:
            text += line
            names = (
                read_records(str(self.path), text, self.USUAL, self.columns).names if text.count('"') % 2 == 0 else []
            )
            if names:
                require(self.path, self.columns, names)
                return text
        raise UserError(f"{self.path}: is empty; its first line must name the columns")

    def put(self, out: TextIO, block: Block, new: Mapping[str, list[Any]], types: Added) -> None:
        writer = csv.writer(out, delimiter=self.delimiter, lineterminator="\n")
        if not self.begun:
            self.begun = True
            writer.writerow([*block.names, *types])
        added = zip(*(new[name] for name in types), strict=True)
        writer.writerows([*row, *values] for row, values in zip(block.rows, added, strict=True))


class _Tabbed(_Delimited):
    USUAL = "\t"


class _Taken:
    """The lines of a file, of which `records` takes as many as make whole records of csv."""

    def __init__(self, lines: Iterator[str]) -> None:
        self.lines, self.taken, self.open = lines, list[str](), 0

    def __iter__(self) -> "_Taken":
        return self

    def __next__(self) -> str:
        line = next(self.lines)
        self.taken.append(line)
        self.open += len(line)
        if self.open > LONGEST:
            raise csv.Error("a record that does not end")
        return line

    @property
    def count(self) -> int:
        """The number of lines that `records` took."""
        return len(self.taken)

    def records(self, count: int, delimiter: str) -> str:
        """The lines of the next `count` records, or up to the first that is malformed."""
        csv.field_size_limit(2**31 - 1)
        self.taken, self.open = [], 0
        with contextlib.suppress(csv.Error):  # read_records says what is wrong, or that nothing is in a file of tabs
            for _ in itertools.islice(csv.reader(self, delimiter=delimiter, strict=True), count):
                self.open = 0
        return "".join(self.taken)


class _JsonLines(RowFile):
    def blocks(self) -> Iterator[Block]:
        filled = ((number, line) for number, line in self._lines() if line.strip())
        while some := list(itertools.islice(filled, self.block)):
            rows = [json_row(self.path, number, line, self.columns) for number, line in some]
            cells = {column: [row[column] for row in rows] for column in self.columns}
            names = list(dict.fromkeys(name for row in rows for name in row))
            yield Block(Table(self.path, cells, [f"line {number}" for number, _ in some]), names, rows)

    def put(self, out: TextIO, block: Block, new: Mapping[str, list[Any]], types: Added) -> None:
        for at, row in enumerate(block.rows):
            added = {name: new[name][at] for name in types}
            out.write(json.dumps({**row, **added}, ensure_ascii=False) + "\n")


class _Text(RowFile):
    """One text a line, or two with a tab between; written as the new columns, with tabs between."""

    def blocks(self) -> Iterator[Block]:
        lines = self._lines()
        while some := list(itertools.islice(lines, self.block)):
            rows = [line.rstrip("\r\n").split("\t", len(self.columns) - 1) for _, line in some]
            for (number, _), row in zip(some, rows, strict=True):
                if len(row) < len(self.columns) and any(row):
                    raise UserError(f"{self.path}, line {number}: has one text; the run reads two, with a tab between")
            padded = [row if len(row) == len(self.columns) else [""] * len(self.columns) for row in rows]
            cells = dict(zip(self.columns, map(list, zip(*padded, strict=True)), strict=True))
            yield Block(Table(self.path, cells, [f"line {number}" for number, _ in some]), [], rows)

    def put(self, out: TextIO, block: Block, new: Mapping[str, list[Any]], types: Added) -> None:  # noqa: ARG002
        for values in zip(*(new[name] for name in types), strict=True):
            out.write("\t".join("" if v is None else re.sub(r"[\t\r\n]+", " ", str(v)) for v in values) + "\n")


class _Parquet(RowFile):
    rows, done = 0, 0
    writer: Any = None

    def blocks(self) -> Iterator[Block]:
        from pyarrow import parquet

        try:
            with parquet.ParquetFile(self.stream) as file:
                self.rows = file.metadata.num_rows
                require_cells(self.path, self.columns, file.schema_arrow)
                for batch in file.iter_batches(self.block):
                    cells = {column: arrow_cells(batch.column(column)) for column in self.columns}
                    where = [f"row {self.done + row}" for row in range(1, batch.num_rows + 1)]
                    self.done += batch.num_rows
                    yield Block(Table(self.path, cells, where), list(batch.schema.names), batch)
        except UserError:
            raise
        except Exception as error:  # the reader of a foreign file: a damaged one ends in errors of many classes
            reason = shown((str(error) or type(error).__name__).splitlines()[0])
            raise UserError(f"{self.path}: cannot be read as parquet ({reason})") from None

    def put(self, out: BinaryIO, block: Block, new: Mapping[str, list[Any]], types: Added) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        table = pa.table(block.rows)
        for name, kind in types.items():
            table = table.append_column(name, pa.array(new[name], pa.string() if kind is str else pa.float64()))
        if self.writer is None:
            self.writer = parquet.ParquetWriter(out, table.schema)
        self.writer.write_table(table)

    def close(self) -> None:
        """Ends the file that `put` writes."""
        if self.writer is not None:
            self.writer.close()

    def share(self) -> float | None:
        return self.done / self.rows if self.rows else None


FORMATS: dict[str, type[RowFile]] = {
    "csv": _Delimited, "tsv": _Tabbed, "jsonl": _JsonLines, "parquet": _Parquet, "txt": _Text,
}  # fmt: skip


@contextlib.contextmanager
def open_rows(file: str, columns: Mapping[str, str], kind: str | None) -> Iterator[RowFile]:
    """The rows of a file, whose suffix says its format, or of standard input (`-`), which is text unless `kind` is set.

    Raises UserError where there is no such file.
    """
    if file == "-":
        if kind == "parquet":
            raise UserError("--format: got parquet, which is not read from standard input; name a file")
        yield FORMATS[kind or "txt"](Path("standard input"), sys.stdin.buffer, columns)
        return
    path = existing("FILE", file, [f".{name}" for name in FORMATS])
    with path.open("rb") as stream:
        yield FORMATS[kind or path.suffix[1:].lower()](path, stream, columns)


@contextlib.contextmanager
def output(rows: RowFile, to: Path | None) -> Iterator[Any]:
    """A stream for `put`: a file that is there once all is written, or standard output."""
    if to is None:
        if isinstance(rows, _Parquet):
            raise UserError("--to: got nothing; parquet is written to a file, as --to predictions.parquet")
        yield sys.stdout
        return
    suffix = next(name for name, kind in FORMATS.items() if type(rows) is kind)
    if to.suffix.lower() != f".{suffix}":
        raise UserError(f"--to: got '{shown(str(to))}'; the output has the format of the input, so end it in .{suffix}")
    with atomic_path(to) as temporary:
        if isinstance(rows, _Parquet):
            with temporary.open("wb") as stream:
                yield stream
                rows.close()
        else:
            with temporary.open("w", encoding="utf-8", newline="") as out:
                yield out
