"""Tasks that are handed in together: all of them are stored or none."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from actors.connection import Connection
from actors.desk import Desk
from actors.policy.admission import check_task
from actors.policy.priority import Settle
from autoglm import wire
from autoglm.errors import InvalidRequest
from autoglm.graph import Circle, in_order
from autoglm.types import ErrorInfo, TaskSpec
from runtime.store.graphprotocol import InsertGraph, none_of

Reply = Callable[[tuple[wire.Accepted, ...]], None]


def hand_in(
    desk: Desk,
    connection: Connection,
    request: wire.Submit,
    queues: Collection[str],
    by_rules: Settle,
    reply: Reply,
) -> None:
    """Have all tasks of the request stored, or tell which of them are wrong."""
    checked, wrong = _checked(request.tasks, connection.tenant, queues, by_rules)
    places: list[int] = []
    if not wrong:
        places, wrong = _places(checked)
    if wrong:
        accepted = [wire.Accepted(error=wrong.get(place)) for place in range(len(request.tasks))]
        reply(none_of(accepted))
        return

    def then(stored: tuple[wire.Accepted, ...]) -> None:
        by_place = dict(zip(places, stored, strict=True))
        reply(tuple(by_place[place] for place in range(len(places))))

    write = InsertGraph(tuple(checked[place] for place in places))
    desk.commit(connection, request.rid, write, then)


def _checked(
    tasks: Sequence[TaskSpec], tenant: str | None, queues: Collection[str], by_rules: Settle
) -> tuple[list[TaskSpec], dict[int, ErrorInfo]]:
    """The tasks as they are to be stored, and what is wrong with some, by place."""
    checked: list[TaskSpec] = []
    wrong: dict[int, ErrorInfo] = {}
    seen: set[str] = set()
    for place, spec in enumerate(tasks):
        try:
            if spec.id in seen:
                raise InvalidRequest(f"id {spec.id[:40]} stands twice in one submit")
            seen.add(spec.id)
            checked.append(check_task(spec, tenant, queues, by_rules))
        except InvalidRequest as error:
            wrong[place] = _info(error)
    return checked, wrong


def _places(tasks: Sequence[TaskSpec]) -> tuple[list[int], dict[int, ErrorInfo]]:
    """The order in which they can be stored, or what is wrong with those that have none."""
    places = {spec.id: place for place, spec in enumerate(tasks)}
    try:
        return [places[id] for id in in_order({spec.id: spec.after for spec in tasks})], {}
    except Circle as circle:
        error = _info(InvalidRequest(str(circle)))
        return [], {places[id]: error for id in circle.ids}


def _info(error: InvalidRequest) -> ErrorInfo:
    return ErrorInfo(error.code, str(error))
