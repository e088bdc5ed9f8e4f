"""What each request of a client means: checked, turned into writes and queries, answered."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import assert_never

from actors import graphrequests
from actors.connection import Connection
from actors.deadrequests import DeadRequests
from actors.desk import Desk, settle
from actors.drillrequests import DrillRequests
from actors.lookrequests import LookRequests
from actors.monitor import told_to
from actors.policy.admission import (
    check_after,
    check_count,
    check_lines,
    check_task,
    edit_of,
    stored,
)
from actors.policy.pace import Pace
from actors.policy.priority import PriorityRules
from actors.queues import Queues
from actors.steerrequests import SteerRequests
from actors.telling import Telling, unknown_task
from autoglm import wire
from autoglm.errors import InvalidRequest, NotAllowed, ProtocolError
from autoglm.ids import Ids
from autoglm.spec import check_name
from autoglm.status import Status
from autoglm.types import Answer, ErrorInfo, TaskSpec, TaskState
from runtime.store import jobprotocol as jp
from runtime.store import protocol as p
from runtime.store import upkeepprotocol as up
from runtime.store.backlog import FetchStanding, Standing

log = logging.getLogger("autoglm.frontdoor")
DEFAULT_TENANT = "default"


class Requests:
    """Understands requests. `take` never raises anything but ProtocolError."""

    def __init__(
        self,
        desk: Desk,
        telling: Telling,
        welcome: Callable[[int], wire.Welcome],
        ids: Ids,
        queues: Queues,
        rules: PriorityRules,
        pace: Pace,
    ) -> None:
        self._desk = desk
        self._telling = telling
        self._welcome = welcome
        self._ids = ids
        self._queues = queues
        self._rules = rules
        self._pace = pace
        """Measured by the scheduler."""
        self._dead = DeadRequests(desk)
        self._drills = DrillRequests(desk)
        self._steering = SteerRequests(desk, queues)
        self._looking = LookRequests(desk)

    def take(self, connection: Connection, request: wire.Request) -> None:
        """Start answering. Raises ProtocolError when the connection can't go on."""
        if not connection.greeted and not isinstance(request, wire.Hello):
            raise ProtocolError("the first request must be hello")
        try:
            self._take(connection, request)
        except (InvalidRequest, NotAllowed) as error:
            connection.reply(wire.refusal(request.rid, error))

    def _take(self, connection: Connection, request: wire.Request) -> None:  # noqa: C901 - one table
        match request:
            case wire.Hello():
                self._hello(connection, request)
            case wire.Submit():
                self._submit(connection, request)
            case wire.Get(rid, id, wait):
                if wait:
                    self._telling.wait_for(connection, rid, (id,), chunks=False, look_up=(id,))
                else:
                    self._get(connection, rid, id)
            case wire.Follow(rid, id):
                self._telling.wait_for(connection, rid, (id,), chunks=True, look_up=(id,))
            case wire.Forget(_, target):
                self._telling.forget(connection, target)
            case wire.ListTasks():
                self._list(connection, request)
            case wire.Cancel():
                self._cancel(connection, request)
            case wire.Edit():
                self._edit(connection, request)
            case wire.GetStatus(rid):
                self._status(connection, rid)
            case wire.GetEvents():
                self._events(connection, request)
            case wire.Prune():
                self._prune(connection, request)
            case wire.ListDead() | wire.ShowDead() | wire.SettleDead() | wire.EditDead():
                self._dead.take(connection, request)
            case wire.BeginDrill() | wire.GetDrill() | wire.TakeCensus():
                self._drills.take(connection, request)
            case (
                wire.Steer()
                | wire.SteerQueue()
                | wire.SetQueue()
                | wire.ListQueues()
                | wire.ListTenants()
            ):
                self._steering.take(connection, request)
            case wire.ExportTasks() | wire.FindIds():
                self._looking.take(connection, request)
            case wire.OpenJob():
                self._open_job(connection, request)
            case wire.SubmitLines():
                self._submit_lines(connection, request)
            case wire.GetJobLines():
                limit = min(max(1, request.limit), wire.PAGE_MAX)
                bounded = wire.GetJobLines(
                    request.rid, request.job, stored(request.after), request.ordered, limit
                )
                self._telling.wait_for_lines(connection, bounded)
            case _:
                assert_never(request)

    def _hello(self, connection: Connection, request: wire.Hello) -> None:
        if request.protocol != wire.PROTOCOL_VERSION:
            raise ProtocolError(
                f"this server speaks protocol {wire.PROTOCOL_VERSION}, the client"
                f" {request.protocol}: use the same version of autoglm on both sides"
            )
        if request.tenant is not None:
            check_name("tenant", request.tenant)
        connection.greeted = True
        connection.tenant = request.tenant
        connection.reply(self._welcome(request.rid))

    def _submit(self, connection: Connection, request: wire.Submit) -> None:
        rid = request.rid
        if not request.tasks:
            raise InvalidRequest("a submit holds at least one task")
        check_count("tasks", len(request.tasks))
        check_after(request.tasks)

        def reply(accepted: tuple[wire.Accepted, ...]) -> None:
            tasks = [each.task for each in accepted if each.task is not None]
            follow = request.follow and bool(tasks)
            connection.reply(wire.Submitted(rid, accepted), last=not follow)
            if follow:
                # The end of a new task comes after this answer; an older one may have ended.
                old = tuple(e.task.id for e in accepted if e.task is not None and e.duplicate)
                ids = tuple(task.id for task in tasks)
                self._telling.wait_for(connection, rid, ids, chunks=True, look_up=old)

        by_rules = self._rules.at(self._ids.now_ms())
        if request.atomic:
            names = self._queues.names
            graphrequests.hand_in(self._desk, connection, request, names, by_rules, reply)
            return
        checked: list[TaskSpec] = []
        refused: dict[int, ErrorInfo] = {}
        for place, spec in enumerate(request.tasks):
            try:
                checked.append(check_task(spec, connection.tenant, self._queues.names, by_rules))
            except InvalidRequest as error:
                refused[place] = ErrorInfo(error.code, str(error))

        def then(stored: tuple[wire.Accepted, ...]) -> None:
            each = iter(stored)
            reply(
                tuple(
                    wire.Accepted(error=refused[place]) if place in refused else next(each)
                    for place in range(len(request.tasks))
                )
            )

        if checked:
            self._desk.commit(connection, rid, p.InsertTasks(tuple(checked)), then)
        else:
            then(())

    def _get(self, connection: Connection, rid: int, id: str) -> None:
        def then(found: dict[str, Answer]) -> None:
            answer = found.get(id)
            if answer is None:
                connection.reply(wire.refusal(rid, unknown_task(id)))
                return
            if answer.task.state not in (TaskState.PENDING, TaskState.RUNNING):
                connection.reply(wire.AnswerReply(rid, answer))
                return

            def tell(standing: Standing | None) -> None:
                eta = None if standing is None else self._pace.of(standing, self._ids.now_ms())
                connection.reply(wire.AnswerReply(rid, answer, eta))

            self._desk.ask(connection, rid, FetchStanding(connection.tenant, id), tell)

        self._desk.ask(connection, rid, p.FetchAnswers(connection.tenant, (id,)), then)

    def _status(self, connection: Connection, rid: int) -> None:
        def then(status: Status) -> None:
            connection.reply(wire.StatusReply(rid, told_to(connection.tenant, status)))

        self._desk.ask_status(connection, rid, then)

    def _list(self, connection: Connection, request: wire.ListTasks) -> None:
        limit = min(max(1, request.limit), wire.PAGE_MAX)
        bounded = wire.ListTasks(
            *(request.rid, tuple(dict.fromkeys(request.states)), request.tenant),
            *(request.job, None if request.before is None else stored(request.before), limit),
        )
        self._desk.ask(
            connection,
            request.rid,
            p.FetchTasks(connection.tenant, bounded),
            lambda page: connection.reply(wire.TaskPage(request.rid, *page)),
        )

    def _cancel(self, connection: Connection, request: wire.Cancel) -> None:
        check_count("ids", len(request.ids))
        after = stored(request.after)
        write = p.CancelTasks(connection.tenant, request.ids, request.job, after, connection.by)
        settle(self._desk, connection, request.rid, write)

    def _edit(self, connection: Connection, request: wire.Edit) -> None:
        rid, ids = request.rid, tuple(dict.fromkeys(request.ids))
        check_count("ids", len(ids))
        write = edit_of(request, ids, connection.tenant, connection.by)

        def then(_: None) -> None:
            def tell(found: dict[str, Answer]) -> None:
                tasks = tuple(found[id].task for id in ids if id in found)
                connection.reply(wire.TaskPage(rid, tasks))

            self._desk.ask(connection, rid, p.FetchAnswers(connection.tenant, ids), tell)

        self._desk.commit(connection, rid, write, then)

    def _events(self, connection: Connection, request: wire.GetEvents) -> None:
        limit = min(max(1, request.limit), wire.PAGE_MAX)
        bounded = wire.GetEvents(request.rid, stored(request.after), request.task, limit)
        self._desk.ask(
            connection,
            request.rid,
            p.FetchEvents(connection.tenant, bounded),
            lambda page: connection.reply(wire.EventPage(request.rid, *page)),
        )

    def _prune(self, connection: Connection, request: wire.Prune) -> None:
        if connection.tenant is not None:
            raise InvalidRequest("pruning is for the operator: connect without a tenant")

        def then(done: up.Pruned) -> None:
            removed = (done.tasks, done.results, done.events, done.jobs, done.next)
            connection.reply(wire.Pruned(request.rid, *removed))

        after = (stored(request.after[0]), stored(request.after[1]))
        write = up.PruneTasks(stored(request.before), after)
        self._desk.commit(connection, request.rid, write, then)

    def _open_job(self, connection: Connection, request: wire.OpenJob) -> None:
        write = jp.OpenJob(
            self._ids.mint(),
            connection.tenant or DEFAULT_TENANT,
            request.output,
            request.input_hash,
            request.options_hash,
            request.fresh,
        )

        def then(job: jp.JobOpening) -> None:
            connection.reply(
                wire.JobOpened(request.rid, job.id, job.submitted, job.sealed, job.resumed)
            )

        self._desk.commit(connection, request.rid, write, then)

    def _submit_lines(self, connection: Connection, request: wire.SubmitLines) -> None:
        by_rules = self._rules.at(self._ids.now_ms())
        lines = check_lines(request.lines, connection.tenant, self._queues.names, by_rules)
        self._desk.commit(
            connection,
            request.rid,
            jp.InsertLines(connection.tenant, request.job, lines, request.last),
            lambda submitted: connection.reply(wire.LinesSubmitted(request.rid, submitted)),
        )
