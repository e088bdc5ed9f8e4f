"""Reading tasks in bulk, page by page, and finding one by a part of its id."""

from __future__ import annotations

import argparse
import csv
import io
from pathlib import Path
from typing import Any

import msgspec
import pytest

from autoglm import wire
from autoglm.deadletter import Content
from autoglm.errors import UsageError
from autoglm.exporting import COLUMNS, _csv_line  # pyright: ignore[reportPrivateUsage]
from autoglm.ids import Ids
from autoglm.shortids import expand
from autoglm.types import ErrorInfo, Message, Output, Task, TaskState, Usage
from autoglm.wire.framing import encode_frame
from model.host import ANSWER_BYTES_MAX
from runtime.store import exporting
from runtime.store.exporting import FetchExport, FetchIds
from tests.scripted import scripted
from tests.test_store import NOW, Bench, bench, spec, success

__all__ = ["bench"]


async def export(bench: Bench, **wanted: Any) -> tuple[list[str], int]:
    """The ids in the order they come, and in how many pages."""
    ids: list[str] = []
    pages = 0
    after: int | None = 0
    while after is not None:
        asked = msgspec.structs.replace(wire.ExportTasks(0, **wanted), after=after)
        page, after = await bench.store.query(FetchExport(None, asked))
        ids += [each.task.id for each in page]
        pages += 1
    return ids, pages


async def test_every_task_comes_once_oldest_first_with_what_it_asks_and_its_answer(
    bench: Bench,
) -> None:
    await bench.insert(*(spec(f"t{number}") for number in range(7)))
    await bench.claim(1)
    await bench.record(success(1, text="yes"))
    ids, pages = await export(bench, limit=3)
    assert (ids, pages) == ([f"t{number}" for number in range(7)], 3)
    page, _ = await bench.store.query(FetchExport(None, wire.ExportTasks(0)))
    assert page[0].content == Content(prompt="prompt t0")
    assert (page[0].result.text, page[1].result) == ("yes", None)


async def test_a_page_ends_where_its_texts_grow_too_long(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "PAGE_BYTES_MAX", 300)
    await bench.insert(*(spec(f"t{n}", prompt="x" * 80) for n in range(9)))
    await bench.insert(spec("huge", prompt="x" * 1000))
    ids, pages = await export(bench)
    assert ids == [*(f"t{n}" for n in range(9)), "huge"]
    assert pages > 2
    page, _ = await bench.store.query(FetchExport(None, wire.ExportTasks(0, after=9)))
    assert page[0].content is None


async def test_a_task_that_is_as_long_as_it_can_be_is_exported(bench: Bench) -> None:
    await bench.insert(
        spec("prompt", prompt="\N{GRINNING FACE}" * 2_500_000),
        spec("both", prompt="\N{GRINNING FACE}" * 2_000_000),
    )
    await bench.claim(1)
    await bench.claim(2)
    longest = "\N{GRINNING FACE}" * (ANSWER_BYTES_MAX // 4)
    await bench.record(success(1, text=longest), success(2, text=longest))
    after: int | None = 0
    contents: list[bool] = []
    while after is not None:
        page, after = await bench.store.query(FetchExport(None, wire.ExportTasks(0, after=after)))
        encode_frame(wire.ExportPage(1, page, after))  # raises for what is too long
        contents += [each.content is not None for each in page]
    assert contents == [False, True]


async def test_only_what_fits_comes_however_little_that_is(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "STRETCH", 4)
    for number in range(20):
        queue, tenant = ("core" if number % 5 == 0 else "normal"), ("a" if number < 10 else "b")
        one = spec(f"t{number:02}", queue=queue, tenant=tenant)
        await bench.insert(one, now=NOW + number * 1000)
    assert (await export(bench, queue="core"))[0] == ["t00", "t05", "t10", "t15"]
    assert (await export(bench, queue="core", tenant="b"))[0] == ["t10", "t15"]
    assert (await export(bench, states=(TaskState.DEAD,)))[0] == []
    for since in range(21):
        found, _ = await export(bench, since=NOW + since * 1000)
        assert found == [f"t{number:02}" for number in range(since, 20)]
    seen, _ = await bench.store.query(FetchExport("a", wire.ExportTasks(0, tenant="b")))
    assert seen == ()


async def test_an_id_is_found_by_its_beginning_or_among_the_newest_by_its_end(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def found(part: str, tenant: str | None = None) -> tuple[str, ...]:
        return await bench.store.query(FetchIds(tenant, part))

    await bench.insert(spec("abcd1"), spec("abce2", tenant="other"), spec("zzzz2"))
    assert await found("abcd") == ("abcd1",)
    assert await found("abc") == ("abcd1", "abce2")
    assert await found("e2") == ("abce2",)
    assert await found("2") == ("abce2", "zzzz2")
    assert await found("2", "default") == ("zzzz2",)
    assert await found("%") == ()
    monkeypatch.setattr(exporting, "RECENT", 1)
    assert await found("2") == ("zzzz2",)


def arguments(socket: Path, **given: Any) -> argparse.Namespace:
    return argparse.Namespace(socket=str(socket), data_dir=None, **given)


async def test_ids_of_a_command_line_are_put_in_full() -> None:
    known = {"7wfb2xdm": ("01m7z650zm7wfb2xdm",), "01m7z6": ("01m7z6a", "01m7z6b")}

    def server(request: wire.Request) -> list[wire.Reply]:
        assert isinstance(request, wire.FindIds)
        return [wire.IdsReply(request.rid, known.get(request.part, ()))]

    whole = Ids().mint()
    async with scripted(server) as socket:
        given = arguments(socket, ids=["7WFB2XDM", whole, "nobody's"], job="7wfb2xdm", task=None)
        await expand(given)
        assert given.ids == ["01m7z650zm7wfb2xdm", whole, "nobody's"]
        assert given.job == "01m7z650zm7wfb2xdm"
        with pytest.raises(UsageError, match="01m7z6 is short for several ids: 01m7z6a, 01m7z6b"):
            await expand(arguments(socket, id="01m7z6"))


async def test_nobody_is_asked_about_ids_in_full(tmp_path: Path) -> None:
    given = arguments(tmp_path / "nobody", id=Ids().mint(), ids=[])
    await expand(given)


def cells(found: wire.Exported, *, guarded: bool) -> dict[str, str]:
    [row] = csv.reader(io.StringIO(_csv_line(guarded=guarded)(found).decode(), newline=""))
    return dict(zip(COLUMNS, row, strict=True))


def test_cells_are_as_they_were_unless_they_are_for_a_spreadsheet() -> None:
    task = Task("id", TaskState.DEAD, key="@key", created_at=1000, error=ErrorInfo("a", "-b"))
    text = '=1+1\x1b[31m "q",\n'
    found = wire.Exported(
        task, Content((Message("user", "\t+x\ry"),)), Output(text, "stop", Usage(1, 2))
    )
    plain = cells(found, guarded=False)
    assert (plain["answer"], plain["prompt"], plain["key"]) == (text, "\t+x\ry", "@key")
    assert (plain["created_at"], plain["finished_at"]) == ("1970-01-01T00:00:01.000+00:00", "")
    safe = cells(found, guarded=True)
    assert (safe["answer"], safe["prompt"]) == ('\'=1+1 "q",\n', "'\t+xy")
    assert (safe["key"], safe["error_message"], safe["prompt_tokens"]) == ("'@key", "'-b", "1")
