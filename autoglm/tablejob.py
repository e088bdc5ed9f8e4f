"""A job whose tasks are the rows of a table: the rows come back in their order, with the answer.

OUT is CSV or JSONL. Beside a row's own columns it has three: the answer, how it ended (`stop`,
`length`, or `cached` and `default` where no engine wrote it), and why there is none. A row that
failed stays in its place, so OUT has as many rows as the table.

What OUT holds tells how far the job is: row for row the columns of the table. So no other file has
to agree with it, and an OUT that holds something else is left alone.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import msgspec

from autoglm.bits import Bits
from autoglm.errors import Conflict, UsageError
from autoglm.ids import Ids
from autoglm.inputfile import InputFile, Survey, open_input
from autoglm.jsonline import BadLine
from autoglm.resultfile import ResultFile, why_none
from autoglm.spec import TaskOptions, task_spec
from autoglm.table import CSV_SUFFIXES, Row, Table, csv_line
from autoglm.template import Template, no_column
from autoglm.text import one_line
from autoglm.types import ErrorInfo, TaskSpec
from autoglm.wire import JobLine, JobLineEnded

_JSONL = (".jsonl", ".ndjson", ".json", "")


class TableInput:
    """The rows of a table as the tasks of a job. Raises UsageError for a column there is not."""

    def __init__(
        self,
        path: Path,
        template: str,
        options: TaskOptions,
        answer: str,
    ) -> None:
        self.path = path
        self.table = Table(path)
        self.answer = answer
        self._template = Template(template)
        self._options = options
        self.key = options.get("key")
        """What the keys of its tasks begin with, if somebody says so."""
        self.about = msgspec.msgpack.encode((template, answer, sorted(options.items())))
        """What of the options changes the output."""
        columns = self.table.columns
        for name in self._template.columns if self.table.is_csv else ():
            if name not in columns:
                raise UsageError(f"{one_line(str(path))}: {no_column(name, columns)}")
            if columns.count(name) > 1:
                raise UsageError(f"{one_line(str(path))}: two columns {one_line(name, 40)}")

    def survey(self) -> Survey:
        """Read the whole file once. Raises UsageError for one that can't be read, or that has the
        answer's column already.
        """
        with open_input(self.path) as file:
            source, count = InputFile(file), 0
            _refuse_taken(self.path, added_columns(self.answer), self.table.columns)
            for row in self.table.rows(source):
                count += 1
                _refuse_taken(self.path, added_columns(self.answer), row.fields)
            return Survey(source.sha256, count, Bits())

    def lines(
        self, source: InputFile, job: str, ids: Ids, after: int
    ) -> Iterator[tuple[JobLine, int]]:
        """The rows after row `after`, each with about how many bytes it takes."""
        for row in self.table.rows(source):
            if row.number > after:
                task = self.task(row, f"{self.key or job}:{row.number}", ids)
                if isinstance(task, ErrorInfo):
                    yield JobLine(row.number, error=task), len(task.message)
                else:
                    yield JobLine(row.number, task=task), len(task.messages[-1].content)

    def task(self, row: Row, key: str, ids: Ids) -> TaskSpec | ErrorInfo:
        """The task of a row, or why it is none."""
        if row.error is not None:
            return row.error
        try:
            prompt = self._template.fill(row.values(self._template.columns))
            given: TaskOptions = {**self._options, "key": key}
            return task_spec(prompt, id=ids.mint(), now_ms=ids.now_ms(), **given)
        except BadLine as error:
            return ErrorInfo(error.code, str(error))

    def results(self, output: Path, *, ordered: bool) -> TableResults:
        """Where the answers go. Raises UsageError."""
        as_csv = output.suffix.lower() in CSV_SUFFIXES
        if not as_csv and output.suffix.lower() not in _JSONL:
            raise UsageError(
                f"{one_line(str(output))}: rows are written as CSV ({', '.join(CSV_SUFFIXES)})"
                f" or JSONL ({', '.join(_JSONL[:-1])}); give it such a name"
            )
        if not ordered:
            raise UsageError("--as-completed: rows of a table come back in their order")
        if as_csv and not self.table.is_csv:
            raise UsageError(f"{one_line(str(output))}: rows of JSONL come back as JSONL")
        twice = [name for name, many in Counter(self.table.columns).items() if many > 1]
        if twice and not as_csv:
            name = one_line(twice[0], 40) or "“”"
            raise UsageError(
                f"{one_line(str(self.path))}: two columns are named {name} and an object of JSONL"
                " holds one; rename one, or give an OUT.csv"
            )
        return TableResults(output, self.table, self.answer, as_csv=as_csv)


def added_columns(answer: str) -> tuple[str, str, str]:
    """What OUT has beside the table's own."""
    return (answer, f"{answer}_finish", f"{answer}_error")


def _delimiter(output: Path, of_table: str) -> str:
    """A name that says .tsv means tabs, and one that does not means none."""
    if output.suffix.lower() == ".tsv":
        return "\t"
    return "," if of_table == "\t" else of_table


def _refuse_taken(path: Path, added: tuple[str, ...], columns: Container[str]) -> None:
    for name in added:
        if name in columns:
            raise UsageError(
                f"{one_line(str(path))} has a column {one_line(name, 40)} already;"
                " name the answer's with --answer-column"
            )


class TableResults:
    """OUT, row by row."""

    def __init__(self, output: Path, table: Table, answer: str, *, as_csv: bool) -> None:
        self._file = ResultFile(output)
        self._table = table
        self._as_csv = as_csv
        self._delimiter = _delimiter(output, table.delimiter)
        self._added = added_columns(answer)
        self._rows: Iterator[Row] = iter(())
        """Those that are not in OUT yet."""
        self._headless = as_csv
        self.answered = 0
        self.failed = 0

    def __enter__(self) -> Self:
        self._file.open()
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def clear(self) -> None:
        """Begin anew."""
        self._file.cut(0, durable=True)

    def begin(self) -> None:
        """Of a new job nothing can be there yet. Raises Conflict."""
        if self._file.size:
            raise self._foreign()

    def take_up(self, _job: str, _blank: Bits) -> Bits:
        """The rows that are there; what is torn behind them is cut off.

        Raises Conflict where OUT is not what this job wrote.
        """
        size = last = 0
        self._rows = self._table.rows()
        written = self._written()
        if self._as_csv:
            header, size = next(written, (None, 0))
            self._headless = header is None
            if header is not None and header != [*self._table.columns, *self._added]:
                raise self._foreign()
        for record, end in written:
            row = next(self._rows, None)
            if row is None or not self._same(record, row):
                raise self._foreign()
            size, last = end, row.number
            self._count(failed=bool(record[-1] if self._as_csv else record[self._added[2]]))
        self._file.cut(size)
        return Bits.up_to(last)

    def record(self, _job: str, lines: Sequence[JobLineEnded], _model: str) -> None:
        """Add rows, in order. Raises AutoGLMError when the disk is full."""
        text: list[str] = []
        if self._headless:
            text.append(csv_line((*self._table.columns, *self._added), self._delimiter))
            self._headless = False
        for ended in lines:
            row = next(self._rows, None)
            if row is None or row.number != ended.line:
                raise Conflict(f"{one_line(str(self._table.path))} changed while it was read")
            result = ended.answer.result if ended.answer else None
            why = why_none(ended) if result is None else None
            finish = (result.degraded or result.finish_reason) if result else None
            answer = result.text if result else None
            if self._as_csv:
                error = f"{why.code}: {why.message}" if why else ""
                cells = (*row.cells, answer or "", finish or "", error)
                text.append(csv_line(cells, self._delimiter))
            else:
                error = {"code": why.code, "message": why.message} if why else None
                added = dict(zip(self._added, (answer, finish, error), strict=True))
                text.append(json.dumps({**row.fields, **added}, ensure_ascii=False) + "\n")
            self._count(failed=why is not None)
        self._file.write(["".join(text).encode()])

    def finish(self) -> None:
        """Make durable what was written."""
        if self._headless:
            self.record("", (), "")
        self._file.close(durable=True)

    def _written(self) -> Iterator[tuple[Any, int]]:
        """The whole records of OUT, each with where it ends."""
        end = 0

        def lines() -> Iterator[str]:
            nonlocal end
            for line in self._file.lines():
                if not line.endswith(b"\n") or b"\0\0" in line:
                    return
                end += len(line)
                yield line.decode()

        try:
            if self._as_csv:
                reader = csv.reader(lines(), delimiter=self._delimiter, strict=True)
                for record in reader:
                    yield record, end
            else:
                for line in lines():
                    yield json.loads(line), end
        except (csv.Error, ValueError):
            return  # torn, and so will be written again

    def _same(self, record: Any, row: Row) -> bool:
        if self._as_csv:
            return tuple(record[: len(row.cells)]) == row.cells
        if not isinstance(record, dict):
            return False
        wanted = {**row.fields, **dict.fromkeys(self._added)}
        return {**record, **dict.fromkeys(self._added)} == wanted and self._added[2] in record

    def _count(self, *, failed: bool) -> None:
        self.failed += failed
        self.answered += not failed

    def _foreign(self) -> Conflict:
        return Conflict(
            f"{one_line(str(self._file.path))} holds what this job did not write and stays as it"
            " is; give another output, or --fresh to answer everything anew"
        )
