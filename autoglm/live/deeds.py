"""What the keys of the live view do at the server, and what is said of it afterwards."""

from __future__ import annotations

from typing import assert_never

import anyio

from autoglm import wire
from autoglm.client import Client
from autoglm.dead import describe as describe_letter
from autoglm.errors import AutoGLMError
from autoglm.live.state import Deed, Listing, Outcome, Row
from autoglm.paint import Paint
from autoglm.show import describe
from autoglm.showqueues import queue_state
from autoglm.text import clock_time, one_line
from autoglm.types import Task, TaskState

ROWS_MAX = 200
TIMEOUT_S = 10.0
_OPEN = tuple(state for state in TaskState if not state.ended)
_PLAIN = Paint()


async def carry_out(client: Client, deed: Deed) -> Outcome:
    """Never raises for what the server, or its absence, has to say: that is the outcome."""
    try:
        with anyio.fail_after(TIMEOUT_S):
            return await _carry_out(client, deed)
    except TimeoutError:
        return Outcome("the server is silent: it may be done or not", bad=True)
    except AutoGLMError as error:
        return Outcome(one_line(str(error)), bad=True)


async def _carry_out(client: Client, deed: Deed) -> Outcome:
    match deed.kind:
        case "toggle queue":
            return await _toggle_queue(client, deed.target)
        case "toggle":
            return await _toggle(client, deed.target)
        case "cancel":
            return _told(await client.cancel(deed.target))
        case "retry":
            return _told(await client.dead.retry(deed.target))
        case "letters":
            return Outcome(listing=await _letters(client))
        case "tasks":
            return Outcome(listing=await _tasks(client))
        case "letter":
            letter = await client.dead.show(deed.target)
            return Outcome(text=tuple(describe_letter(letter, _PLAIN).splitlines()))
        case "task":
            answer, eta = await client.look(deed.target)
            return Outcome(text=tuple(describe(answer, _PLAIN, eta).splitlines()))
        case _:
            assert_never(deed.kind)


async def _toggle_queue(client: Client, name: str) -> Outcome:
    paused = next((each.paused for each in await client.queues() if each.name == name), False)
    queue = await (client.resume_queue(name) if paused else client.pause_queue(name))
    return Outcome(f"queue {one_line(queue.name)}: {queue_state(queue)}")


async def _toggle(client: Client, id: str) -> Outcome:
    task = await client.get(id)
    if task.state is TaskState.RUNNING:
        return Outcome(f"{one_line(id)} runs: what runs can be cancelled, not paused", bad=True)
    done = await (client.resume([id]) if task.state is TaskState.PAUSED else client.pause([id]))
    return _told(done.tasks[0] if done.tasks else task)


def _told(task: Task) -> Outcome:
    return Outcome(f"{one_line(task.id)}: {task.state.value}")


async def _letters(client: Client) -> Listing:
    letters = await client.dead.list(limit=ROWS_MAX)
    rows = tuple(
        Row(
            each.message_id,
            (
                *(each.message_id, clock_time(each.died_at), each.reason, each.tenant),
                *(str(each.failures), f"{each.error}  {each.text}"),
            ),
        )
        for each in letters
    )
    columns = ("DEAD LETTER", "DIED", "REASON", "TENANT", "FAILS", "ERROR, PROMPT")
    return Listing(_title(len(rows), "dead letters"), columns, rows)


async def _tasks(client: Client) -> Listing:
    message = wire.ListTasks(0, _OPEN, limit=ROWS_MAX)
    page = await client.session.call(message, wire.TaskPage)
    rows = tuple(
        Row(
            task.id,
            (
                *(task.id, task.state.value, clock_time(task.created_at), task.queue),
                *(str(task.priority), str(task.attempt), task.tenant),
            ),
        )
        for task in page.tasks
    )
    columns = ("TASK", "STATE", "CREATED", "QUEUE", "PRI", "TRY", "TENANT")
    return Listing(_title(len(rows), "tasks that wait or run"), columns, rows)


def _title(count: int, what: str) -> str:
    if not count:
        return f"no {what}"
    return f"the newest {count} {what}" if count == ROWS_MAX else f"{count} {what}"
