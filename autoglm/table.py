"""The rows of a CSV or JSONL file, one at a time.

CSV has a header; what parts its columns (comma, semicolon or tab) is what the header has most of,
as spreadsheets differ in it. A row that is no row comes with the reason, and stops nothing; a file
that can't be read as a table at all is refused.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from autoglm.errors import UsageError
from autoglm.inputfile import InputFile, open_input
from autoglm.jsonline import LINE_BYTES_MAX, BadLine, parse_object
from autoglm.text import one_line
from autoglm.types import ErrorInfo

_DELIMITERS = ",;\t"
_JSON_SUFFIXES = (".jsonl", ".ndjson")
CSV_SUFFIXES = (".csv", ".tsv")
BEYOND_CHARS = 200
"""Of the cells that no column is for, in the error that keeps them."""
_encode = msgspec.json.Encoder().encode


def csv_line(cells: Iterable[object], delimiter: str = ",") -> str:
    """A record as one that ends in LF; what a reader could take for an end of line is quoted."""
    text = io.StringIO()
    # Of CR and LF the writer of some versions quotes only those that its own line ends hold.
    csv.writer(text, delimiter=delimiter, lineterminator="\r\n").writerow(cells)
    return f"{text.getvalue()[:-2]}\n"


class Row(msgspec.Struct, frozen=True):
    """`number` counts from 1, the header and blank lines not counted. `fields`: as they were read;
    `cells`: of a CSV, one for each column. `error`: why it is no row.
    """

    number: int
    fields: Mapping[str, Any] = {}
    cells: tuple[str, ...] = ()
    error: ErrorInfo | None = None

    def values(self, names: tuple[str, ...]) -> dict[str, str]:
        """The texts of these columns: what is no text as JSON writes it. Raises BadLine."""
        found: dict[str, str] = {}
        for name in names:
            value = self.fields.get(name)
            if value is None:
                what = "is null" if name in self.fields else "is missing"
                raise BadLine("missing_column", f"column {one_line(name, 40)} {what}")
            found[name] = value if isinstance(value, str) else _encode(value).decode()
        return found


class Table:
    """A table in a file. Raises UsageError when it is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_csv = path.suffix.lower() not in _JSON_SUFFIXES
        self.columns: tuple[str, ...] = ()
        """Of a CSV, as its header has them."""
        self.delimiter = ","
        if self.is_csv:
            self._read_header()

    def rows(self, source: InputFile | None = None) -> Iterator[Row]:
        """Every row. `source` sees every byte of the file that this reads."""
        if source is not None:
            yield from self._csv_rows(source) if self.is_csv else self._json_rows(source)
            return
        with open_input(self.path) as file:
            yield from self.rows(InputFile(file))

    def _read_header(self) -> None:
        with open_input(self.path) as file:
            lines = self._decoded(InputFile(file))
            first = next(lines, "")
            count = first.count
            self.delimiter = max(_DELIMITERS, key=count)
        with open_input(self.path) as file:
            header = next(self._records(InputFile(file)), None)
        if not header:
            raise UsageError(f"{self._name}: no header; the first line names the columns")
        self.columns = tuple(header)

    def _records(self, source: InputFile) -> Iterator[list[str]]:
        csv.field_size_limit(LINE_BYTES_MAX)
        reader = csv.reader(self._decoded(source), delimiter=self.delimiter, strict=True)
        try:
            yield from filter(None, reader)
        except csv.Error as error:
            raise UsageError(f"{self._name}: line {reader.line_num}: {error}") from None

    def _csv_rows(self, source: InputFile) -> Iterator[Row]:
        records = self._records(source)
        next(records, None)
        width = len(self.columns)
        for number, record in enumerate(records, 1):
            error = None
            if len(record) > width:
                beyond = one_line(" | ".join(record[width:]), BEYOND_CHARS)
                many = f"{len(record)} cells for {width} columns"
                error = ErrorInfo("bad_row", f"{many}; left over: {beyond}")
            fields = dict(zip(self.columns, record, strict=False))
            cells = (*record[:width], *[""] * (width - len(record)))
            yield Row(number, fields, cells, error)

    def _json_rows(self, source: InputFile) -> Iterator[Row]:
        number = 0
        for line_number, line in source.lines():
            if not line.strip():
                continue
            number += 1
            try:
                # It is written back, and JSON has no word for infinity.
                yield Row(number, parse_object(line, first=line_number == 1, finite=True))
            except BadLine as error:
                yield Row(number, error=ErrorInfo(error.code, f"line {line_number}: {error}"))

    def _decoded(self, source: InputFile) -> Iterator[str]:
        for number, line in source.lines():
            if len(line) > LINE_BYTES_MAX:
                raise UsageError(f"{self._name}: line {number} is above {LINE_BYTES_MAX} bytes")
            try:
                yield (line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).decode()
            except UnicodeDecodeError:
                raise UsageError(
                    f"{self._name}: line {number} is not UTF-8; save the file as UTF-8"
                ) from None

    @property
    def _name(self) -> str:
        return one_line(str(self.path))
