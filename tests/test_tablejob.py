"""A job of rows: they come back in order, each with its answer, and OUT tells how far it is."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import msgspec
import pytest

from autoglm import wire
from autoglm.errors import AutoGLMError, UsageError
from autoglm.job import JobOptions, run_job
from autoglm.spec import TaskOptions
from autoglm.table import Table
from autoglm.tablejob import TableInput
from autoglm.types import Answer, ErrorInfo, Output, Task, TaskState, Usage
from tests.scripted import scripted
from tests.test_run_job import FakeServer, ended, run

TABLE = 'id;text;n\n1;"two\nlines; ""quoted""";a\n2;short\n\n3;=1+1;c;d\n4;Größe;e\n'
COLUMNS = ["id", "text", "n", "answer", "answer_finish", "answer_error"]


def table(folder: Path, text: str = TABLE, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def options(source: Path, output: str, template: str = "{n}: {text}") -> JobOptions:
    tasks: TaskOptions = {"max_tokens": 5}
    return JobOptions(TableInput(source, template, tasks, "answer"), source.parent / output)


def rows_of(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file, delimiter=";"))


async def refusal(job: JobOptions, server: FakeServer) -> str:
    async with scripted(server) as socket:
        with pytest.raises(AutoGLMError) as refused:
            await run_job(job, socket)
    return str(refused.value)


WHOLE = [
    COLUMNS,
    ["1", 'two\nlines; "quoted"', "a", "answer 1", "stop", ""],
    ["2", "short", "", "", "", "missing_column: column n is missing"],
    ["3", "=1+1", "c", "", "", "bad_row: 4 cells for 3 columns; left over: d"],
    ["4", "Größe", "e", "answer 4", "stop", ""],
]


class Rows(FakeServer):
    """Ends each line as a server does: an error of the line itself is its end."""

    def _reply(self, request: wire.Request) -> list[wire.Reply]:
        if isinstance(request, wire.GetJobLines):
            lines = [line for line in sorted(self.lines) if line > request.after]
            found = [ended(line, error=self.lines[line].error) for line in lines]
            return [wire.JobLines(request.rid, tuple(found), self.sealed)]
        return super()._reply(request)


async def test_rows_come_back_with_their_columns_and_the_answer(tmp_path: Path) -> None:
    server = Rows()
    job = options(table(tmp_path), "out.csv")
    done = await run(job, server)
    assert rows_of(job.output) == WHOLE
    assert (done.total, done.answered, done.failed) == (4, 2, 2)
    first = server.lines[1].task
    assert first is not None
    assert first.messages[-1].content == 'a: two\nlines; "quoted"'
    assert (first.sampling.max_tokens, first.key) == (5, "job:1")


async def test_rows_come_back_as_objects_where_out_is_jsonl(tmp_path: Path) -> None:
    job = options(table(tmp_path), "out.jsonl")
    await run(job, Rows())
    found = [json.loads(line) for line in job.output.read_text().splitlines()]
    assert found[0]["text"] == 'two\nlines; "quoted"'
    assert [each["answer"] for each in found] == ["answer 1", None, None, "answer 4"]
    assert found[1]["answer_error"]["code"] == "missing_column"


@pytest.mark.parametrize("output", ["out.csv", "out.jsonl"])
async def test_a_job_cut_off_anywhere_ends_as_if_it_had_not_been(
    tmp_path: Path, output: str
) -> None:
    job = options(table(tmp_path), output)
    await run(job, Rows())
    whole = job.output.read_bytes()
    for size in range(0, len(whole), 7):
        job.output.write_bytes(whole[:size])
        done = await run(job, Rows(resumed=True))
        assert job.output.read_bytes() == whole
        assert (done.answered, done.failed) == (2, 2)
    job.output.write_bytes(whole[:100] + b"\0" * 50 + b"\n")
    await run(job, Rows(resumed=True))
    assert job.output.read_bytes() == whole


async def test_a_carriage_return_in_a_cell_or_an_answer_makes_no_row(tmp_path: Path) -> None:
    class Returns(Rows):
        def _reply(self, request: wire.Request) -> list[wire.Reply]:
            if not isinstance(request, wire.GetJobLines):
                return super()._reply(request)
            answer = Answer(Task("id", TaskState.SUCCEEDED), Output("a\rb", "stop", Usage(1, 1)))
            after = [line for line in sorted(self.lines) if line > request.after]
            found = [wire.JobLineEnded(line, line, answer=answer) for line in after]
            return [wire.JobLines(request.rid, tuple(found), self.sealed)]

    job = options(table(tmp_path, 'n;text\n"1\r2";x\n3;"y\r\nz"\n'), "out.csv")
    await run(job, Returns())
    whole = job.output.read_bytes()
    assert rows_of(job.output)[1:] == [
        ["1\r2", "x", "a\rb", "stop", ""],
        ["3", "y\r\nz", "a\rb", "stop", ""],
    ]
    for size in range(0, len(whole), 3):
        job.output.write_bytes(whole[:size])
        await run(job, Returns(resumed=True))
        assert job.output.read_bytes() == whole
    server = Returns(resumed=True)
    await run(job, server)
    assert {each.after for each in server.requests if isinstance(each, wire.GetJobLines)} == {2}


@pytest.mark.parametrize("output", ["out.csv", "out.jsonl"])
@pytest.mark.parametrize("resumed", [True, False])
async def test_an_output_of_something_else_is_left_alone(
    tmp_path: Path, output: str, resumed: bool
) -> None:
    job = options(table(tmp_path), output)
    await run(job, Rows())
    other = job.output.read_bytes().replace(b"short", b"other") if resumed else b"precious\n"
    job.output.write_bytes(other)
    assert "stays as it is" in await refusal(job, Rows(resumed=resumed))
    assert job.output.read_bytes() == other


@pytest.mark.parametrize("output", ["out.csv", "out.jsonl"])
async def test_a_fresh_start_that_is_killed_leaves_no_old_answer_to_the_new_job(
    tmp_path: Path, output: str
) -> None:
    job = options(table(tmp_path), output)
    await run(job, Rows())
    held: list[bytes] = []

    class Watched(Rows):
        def _reply(self, request: wire.Request) -> list[wire.Reply]:
            if isinstance(request, wire.OpenJob):
                held.append(job.output.read_bytes())
            return super()._reply(request)

    await run(msgspec.structs.replace(job, fresh=True), Watched())
    assert held == [b""]


@pytest.mark.parametrize("rows", [True, False])
async def test_a_run_that_is_refused_leaves_no_file_and_touches_none(
    tmp_path: Path, rows: bool
) -> None:
    class Refusing(Rows):
        def _reply(self, request: wire.Request) -> list[wire.Reply]:
            assert isinstance(request, wire.OpenJob)
            return [wire.Error(request.rid, "conflict", "a job with other input")]

    source = table(tmp_path, '{"n": "1", "text": "a"}\n', "in.jsonl")
    job = options(source, "out.jsonl") if rows else JobOptions(source, tmp_path / "out.jsonl")
    assert "other input" in await refusal(job, Refusing())
    assert [each.name for each in tmp_path.iterdir()] == ["in.jsonl"]
    job.output.touch()
    await refusal(job, Refusing())
    assert job.output.exists()


async def test_a_table_without_rows_is_its_header(tmp_path: Path) -> None:
    job = options(table(tmp_path, "n;text\n"), "out.csv")
    await run(job, Rows())
    assert job.output.read_text() == "n;text;answer;answer_finish;answer_error\n"


async def test_rows_of_jsonl_are_texts_or_json_and_a_bad_one_stops_nothing(tmp_path: Path) -> None:
    lines = ['{"text": "a", "n": 1.5}', "", '{"text": null, "n": []}', "broken", '{"text": "b"}']
    source = table(tmp_path, "\n".join(lines), "rows.jsonl")
    server = Rows()
    await run(options(source, "out.jsonl"), server)
    task = server.lines[1].task
    assert task is not None
    assert task.messages[-1].content == "1.5: a"
    assert [server.lines[row].error for row in (2, 3, 4)] == [
        ErrorInfo("missing_column", "column text is null"),
        ErrorInfo("not_json", "line 4: expecting value at character 1"),
        ErrorInfo("missing_column", "column n is missing"),
    ]


async def test_a_number_that_json_can_not_write_back_makes_a_bad_row(tmp_path: Path) -> None:
    source = table(tmp_path, '{"n": 1, "text": "a", "x": [-1e400]}\n', "rows.jsonl")
    server, job = Rows(), options(source, "out.jsonl")
    await run(job, server)
    said = "line 1: -1e400 is too large a number"
    assert server.lines[1].error == ErrorInfo("not_json", said)
    assert "Infinity" not in job.output.read_text()


@pytest.mark.parametrize(
    ("text", "name", "output", "said"),
    [
        ("n,txt\n1,2\n", "t.csv", "out.csv", "no column text; did you mean txt?"),
        ("", "t.csv", "out.csv", "no header"),
        ("n,text,text\n", "t.csv", "out.csv", "two columns text"),
        ("n,text,answer\n1,2,3\n", "t.csv", "out.csv", "has a column answer already"),
        ("n,text,answer\n1,2\n", "t.csv", "out.csv", "has a column answer already"),
        ("n,text,answer_finish\n", "t.csv", "out.jsonl", "has a column answer_finish already"),
        ("n,text,a,a\n1,2,3,4\n", "t.csv", "out.jsonl", "two columns are named a and"),
        ("n,text,,\n1,2,3,4\n", "t.csv", "out.jsonl", "two columns are named “” and"),
        ('{"n": 1, "answer_error": 2}\n', "t.jsonl", "out.jsonl", "column answer_error already"),
        ('{"n": 1, "text": 2}\n', "t.jsonl", "out.csv", "rows of JSONL come back as JSONL"),
        ('n,text\n1,"open\n', "t.csv", "out.csv", "line 2: unexpected end of data"),
    ],
)
async def test_a_table_that_can_not_be_used_is_refused(
    tmp_path: Path, text: str, name: str, output: str, said: str
) -> None:
    source = table(tmp_path, text, name)
    async with scripted(Rows()) as socket:
        with pytest.raises(AutoGLMError) as refused:
            await run_job(options(source, output), socket)
    assert said in str(refused.value)
    assert not (tmp_path / output).exists()


def test_what_is_not_utf8_is_named_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes("n,text\n1,Größe\n".encode("latin-1"))
    with pytest.raises(UsageError, match="line 2 is not UTF-8"):
        list(Table(path).rows())


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_header_tells_what_parts_the_columns(tmp_path: Path, delimiter: str) -> None:
    text = "\ufeff" + delimiter.join(["a b", "text"]) + "\r\n" + delimiter.join(["1", "x"]) + "\r\n"
    found = Table(table(tmp_path, text))
    assert found.columns == ("a b", "text")
    assert [row.fields for row in found.rows()] == [{"a b": "1", "text": "x"}]


async def test_rows_in_any_order_are_refused(tmp_path: Path) -> None:
    source = TableInput(table(tmp_path), "{n}", {}, "answer")
    job = JobOptions(source, tmp_path / "out.csv", ordered=False)
    assert "come back in their order" in await refusal(job, Rows())


@pytest.mark.parametrize(("name", "delimiter"), [("out.csv", ","), ("out.tsv", "\t")])
async def test_the_name_of_out_says_what_parts_its_columns(
    tmp_path: Path, name: str, delimiter: str
) -> None:
    source = table(tmp_path, "n\ttext\n1\tx\n", "table.tsv")
    job = options(source, name)
    await run(job, Rows())
    header = job.output.read_text().splitlines()[0]
    assert header == delimiter.join(["n", "text", *COLUMNS[3:]])


async def test_an_output_that_is_neither_csv_nor_jsonl_by_its_name_is_refused(
    tmp_path: Path,
) -> None:
    job = options(table(tmp_path), "out.xlsx")
    assert "give it such a name" in await refusal(job, Rows())
    assert not job.output.exists()
