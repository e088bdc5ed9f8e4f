"""A client bound to a tenant: no call of it reaches what belongs to another."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from autoglm import Client, InvalidRequest, NotFound, ServerError, Task, TaskState, wire
from autoglm.errors import AutoGLMError
from autoglm.ids import Ids
from autoglm.types import Message, TaskSpec
from tests.system.real import INSTANT, Server

pytestmark = pytest.mark.system

NEVER_LOADED = ("--engine", "simulated", "--set", "engine.simulated.load_s=600")


class Two:
    """Two tenants and the operator on one server; one task of the first tenant."""

    def __init__(self, ours: Client, theirs: Client, operator: Client, secret: Task) -> None:
        self.ours = ours
        self.theirs = theirs
        self.operator = operator
        self.secret = secret


@asynccontextmanager
async def two_tenants(folder: Path, *options: str) -> AsyncGenerator[Two]:
    with Server(folder, *options) as server, anyio.fail_after(60):
        async with (
            Client(server.socket, "ours") as ours,
            Client(server.socket, "theirs") as theirs,
            Client(server.socket, None) as operator,
        ):
            yield Two(ours, theirs, operator, await ours.submit("a secret", key="shared"))


async def _follow(client: Client, id: str) -> None:
    async for _ in client.follow(id):
        pass


async def _events(client: Client, id: str) -> None:
    assert [event async for event in client.events(id)] == []
    raise NotFound("an empty log tells nothing either")


async def _submit_after(client: Client, id: str) -> None:
    await client.submit("mine", after=[id])


async def _submit_the_same_id(client: Client, id: str) -> None:
    spec = TaskSpec(id, messages=(Message("user", "a secret"),), tenant="theirs")
    reply = await client.session.call(wire.Submit(0, (spec,)), wire.Submitted)
    [accepted] = reply.tasks
    assert accepted.task is None
    assert accepted.error is not None
    raise NotFound(accepted.error.message)


CALLS: dict[str, Callable[[Client, str], Awaitable[Any]]] = {
    "get": lambda client, id: client.get(id),
    "answer": lambda client, id: client.answer(id),
    "wait": lambda client, id: client.answer(id, wait=True),
    "result": lambda client, id: client.result(id),
    "cancel": lambda client, id: client.cancel(id),
    "dead.show": lambda client, id: client.dead.show(id),
    "dead.retry": lambda client, id: client.dead.retry(id),
    "dead.discard": lambda client, id: client.dead.discard(id),
    "dead.edit": lambda client, id: client.dead.edit(id, "forged"),
    "follow": _follow,
    "events": _events,
    "submit_after": _submit_after,
    "submit_the_same_id": _submit_the_same_id,
}


@pytest.mark.parametrize("options", [INSTANT, NEVER_LOADED], ids=["ended", "waiting"])
async def test_another_tenant_s_task_is_as_if_it_did_not_exist(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    async with two_tenants(tmp_path, *options) as two:
        if options is INSTANT:
            await two.ours.result(two.secret.id)
        for name, call in CALLS.items():
            with pytest.raises(AutoGLMError) as refused:
                await call(two.theirs, two.secret.id)
            assert "secret" not in str(refused.value), name
            assert "succeeded" not in str(refused.value), name
        assert (await two.ours.get(two.secret.id)).state is not TaskState.CANCELLED


async def test_lists_and_logs_hold_one_s_own_alone(tmp_path: Path) -> None:
    async with two_tenants(tmp_path, *NEVER_LOADED) as two:
        own = await two.theirs.submit("mine")
        assert [task.id for task in await two.theirs.list()] == [own.id]
        assert await two.theirs.list(tenant="ours") == []
        assert {event.task async for event in two.theirs.events()} == {own.id}
        everybody = {task.id for task in await two.operator.list()}
        assert everybody == {own.id, two.secret.id}
        assert [t.id for t in await two.operator.list(tenant="ours")] == [two.secret.id]


async def test_a_key_is_each_tenant_s_own(tmp_path: Path) -> None:
    async with two_tenants(tmp_path, *NEVER_LOADED) as two:
        other = await two.theirs.submit("other content", key="shared")
        assert other.id != two.secret.id


async def test_nobody_submits_on_behalf_of_another(tmp_path: Path) -> None:
    async with two_tenants(tmp_path, *NEVER_LOADED) as two:
        with pytest.raises(InvalidRequest, match="ours"):
            await two.theirs.submit("forged", tenant="ours")
        with pytest.raises(InvalidRequest, match="ours"):
            await anext(two.theirs.map(["forged"], tenant="ours"))
        spec = TaskSpec(Ids().mint(), messages=(Message("user", "forged"),), tenant="ours")
        reply = await two.theirs.session.call(wire.Submit(0, (spec,)), wire.Submitted)
        assert [each.task and each.task.tenant for each in reply.tasks] == ["theirs"]
        assert [task.id for task in await two.ours.list()] == [two.secret.id]
        allowed = await two.operator.submit("on behalf", tenant="ours")
        assert (await two.ours.get(allowed.id)).tenant == "ours"


async def test_a_job_is_its_tenant_s_own(tmp_path: Path) -> None:
    ids = Ids()

    def lines(job: str, tenant: str) -> wire.SubmitLines:
        spec = TaskSpec(ids.mint(), messages=(Message("user", "line"),), tenant=tenant)
        return wire.SubmitLines(0, job, (wire.JobLine(1, task=spec),), last=True)

    async with two_tenants(tmp_path, *INSTANT) as two:
        opening = wire.OpenJob(0, "/tmp/out.jsonl", "input", "options")
        job = (await two.ours.session.call(opening, wire.JobOpened)).job
        await two.ours.session.call(lines(job, "ours"), wire.LinesSubmitted)
        for request, kind in (
            (wire.GetJobLines(0, job), wire.JobLines),
            (lines(job, "theirs"), wire.LinesSubmitted),
        ):
            with pytest.raises(ServerError):
                await two.theirs.session.call(request, kind)
        with pytest.raises(NotFound):
            await two.theirs.cancel_job(job)
        assert await two.theirs.list(job=job) == []
        page = await two.ours.session.call(wire.GetJobLines(0, job), wire.JobLines)
        assert [ended.line for ended in page.lines] == [1]
