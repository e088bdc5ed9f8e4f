"""Those who use the server: they speak through the real client, and write down what they were told.

Everybody repeats what is unsure, some cancel, some stream, some hand in files line by line.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.abc
import msgspec

from actors.policy.locality import SHARED_CHARS
from autoglm import wire
from autoglm.client import Client
from autoglm.degrade import Degrade
from autoglm.errors import AutoGLMError, Conflict, EngineUnavailable
from autoglm.ids import Ids
from autoglm.outcomes import accepted_task
from autoglm.retry import Patience
from autoglm.session import AWAY
from autoglm.types import Answer, Message, Sampling, TaskSpec, TaskState
from runtime.queueconfig import QUEUES
from tests.simulation.graphs import spoiled, tangled
from tests.simulation.net import Network
from tests.simulation.plan import DEGRADES, HANG, Errand, Plan
from tests.simulation.world import Universe

T = TypeVar("T")

SOCKET = Path("/nowhere/autoglm.sock")
PATIENCE = Patience(window_s=100_000, busy_s=100_000, engine_s=100_000)
EARLIER_MAX = 6
"""The newest are those that may not have ended."""
_FILLER = ("and", "so", "it", "goes", "on", "word", "by", "word")


def expected_text(prompt: str, tokens: int) -> str:
    """What the simulated engine answers: a function of the prompt alone."""
    digest = hashlib.sha256(prompt.encode()).hexdigest()[:16]
    return digest + "".join(f" {_FILLER[token % len(_FILLER)]}" for token in range(1, tokens))


def system_of(prompt: str) -> tuple[Message, ...]:
    """Some prompts share a long beginning; the same prompt has the same one each time."""
    kind = sum(map(ord, prompt)) % 4
    return (Message("system", f"{kind}" * SHARED_CHARS),) if kind < 2 else ()


class History:
    """What people asked for and were told."""

    def __init__(self) -> None:
        self.prompts: dict[str, str] = {}
        """Of every task that was handed in, by id."""
        self.errands: dict[str, Errand] = {}
        self.after: dict[str, tuple[str, ...]] = {}
        """What a task has to wait for."""
        self.run: set[str] = set()
        """These run whatever becomes of what they wait for."""
        self.expires_at: dict[str, int] = {}
        self.acknowledged: dict[str, str] = {}
        """Ids that the server said it has, and the state it said first."""
        self.answers: dict[str, Answer] = {}
        self.cancelled: set[str] = set()
        """Somebody asked to cancel these."""
        self.reopened: set[str] = set()
        """Somebody asked to retry or discard these when they were dead: their first end was not
        their last.
        """
        self.lines: dict[str, list[wire.JobLineEnded]] = {}
        """Lines of jobs, in the order they were told."""
        self.wanted_lines: dict[str, list[str]] = {}
        """Custom ids of what was handed in, in order."""
        self.edited: dict[str, int] = {}
        """The priority that somebody was told a task has now."""
        self.queues: dict[str, Degrade | None] = {}
        """What was set of a queue last; None: that was taken back."""
        self.wrong: list[str] = []

    def answered(self, answer: Answer) -> None:
        if answer.task.id in self.reopened:
            return
        before = self.answers.setdefault(answer.task.id, answer)
        if before != answer:
            self.wrong.append(f"{answer.task.id}: told {before}, then {answer}")

    def complain(self, text: str) -> None:
        self.wrong.append(text)


class Person:
    def __init__(self, universe: Universe, plan: Plan, name: str, history: History) -> None:
        self._rng = universe.rng(name)
        self._queues = universe.rng(f"{name} queues")
        self._degraded = universe.rng(f"{name} degraded")
        self._mourning = universe.rng(f"{name} mourns")
        self._graphs = universe.rng(f"{name} graphs")
        self._editing = universe.rng(f"{name} edits")
        self._edits = universe.rng("editing").random() < 0.4
        """Whether people change the priority of what waits, in this world."""
        self._ids = universe.ids(name)
        self._plan = plan
        self._name = name
        self._history = history
        self.done = False

    async def live(self) -> None:
        """All errands, one after the other; then wait for every answer."""
        tenant = self._rng.choice([None, "default", self._name])
        while True:
            client = Client(SOCKET, tenant, patience=PATIENCE, ids=self._ids)
            try:
                await client.__aenter__()
                break
            except AWAY:
                await anyio.sleep(0.05)
        try:
            for errand in self._plan.errands(self._name):
                await anyio.sleep(self._rng.uniform(0, 0.1))
                if self._plan.degrade:
                    await anyio.sleep(self._degraded.uniform(0, 1.5))
                await self._run(client, errand)
            for id in list(self._history.prompts):
                if self._history.errands[id].who == self._name:
                    answer = await self._insist(lambda id=id: client.answer(id, wait=True))
                    self._history.answered(answer)
                    if answer.task.state is TaskState.DEAD:
                        await self._mourn(client, id)
        finally:
            await client.__aexit__(None, None, None)
        self.done = True

    async def _run(self, client: Client, errand: Errand) -> None:
        match errand.how:
            case "look":
                await self._look(client)
            case "submit":
                await self._submit(client, errand)
            case "cancel":
                await self._submit(client, errand)
                await anyio.sleep(self._rng.uniform(0, 0.3))
                await self._cancel(client, errand)
            case "stream":
                await self._stream(client, errand)
            case _:
                await self._job(client, errand)

    async def _submit(self, client: Client, errand: Errand) -> None:
        specs: list[TaskSpec] = []
        chained = self._rng.random() < 0.3
        for prompt in errand.prompts:
            after = (specs[-1].id,) if specs and chained else ()
            specs.append(self._spec(client, errand, prompt, after=after))
        atomic = self._graphs.random() < 0.7
        if atomic:
            specs = await self._tangle(client, specs)
        message = wire.Submit(0, tuple(specs), atomic=atomic)
        for _ in range(self._rng.choice([1, 1, 2])):
            reply = await self._insist(lambda: self._hand_in(client, message))
            for spec, accepted in zip(specs, reply.tasks, strict=True):
                if accepted.task is None or accepted.task.id != spec.id:
                    self._history.complain(f"{spec.id} was handed in, told {accepted}")
                else:
                    self._history.acknowledged.setdefault(spec.id, accepted.task.state.value)
        await self._hand_in_a_twin(client, specs[0])
        if self._edits and self._editing.random() < 0.5:
            await self._edit(client, [spec.id for spec in specs])

    async def _edit(self, client: Client, ids: list[str]) -> None:
        """Change priorities, as they were last seen or however they are. What runs is refused."""
        rng = self._editing
        for _ in range(rng.choice([1, 3, 6])):
            id, priority = rng.choice(ids), rng.randrange(10)
            seen = await self._insist(lambda id=id: client.get(id))
            await anyio.sleep(rng.choice([0, 0, 0.02]))
            version = seen.version if rng.random() < 0.5 else None
            try:
                task = await self._insist(
                    lambda id=id, to=priority, at=version: client.edit(
                        id, priority=to, if_version=at
                    ),
                    allowed=Conflict,
                )
            except Conflict:  # it runs; or a first answer was lost, and then it is done
                self._history.edited.pop(id, None)
                continue
            self._history.edited[id] = priority
            if task.priority != priority:
                self._history.complain(f"{id} was edited to {priority}: {task}")

    async def _tangle(self, client: Client, specs: list[TaskSpec]) -> list[TaskSpec]:
        """Have them come after each other in any order; first hand in what can't be."""
        history, rng = self._history, self._graphs
        earlier = [id for id in history.acknowledged if history.errands[id].who == self._name]
        specs = tangled(rng, specs, earlier[-EARLIER_MAX:])
        if rng.random() < 0.4:
            wrong = wire.Submit(0, tuple(spoiled(rng, specs, self._ids)), atomic=True)
            reply = await self._insist(lambda: client.session.call(wrong, wire.Submitted))
            if any(each.task is not None or each.error is None for each in reply.tasks):
                history.complain(f"a graph that is wrong was told {reply}")
        for spec in specs:
            history.after[spec.id] = spec.after
            if spec.after_failure == "run":
                history.run.add(spec.id)
        return specs

    async def _hand_in(self, client: Client, message: wire.Submit) -> wire.Submitted:
        """Raises EngineUnavailable where a queue does not wait: everything is to be repeated."""
        reply = await client.session.call(message, wire.Submitted)
        for each in reply.tasks:
            if each.error is not None and each.error.code == EngineUnavailable.code:
                raise EngineUnavailable(each.error.message, retry_after=each.retry_after)
        return reply

    async def _hand_in_a_twin(self, client: Client, spec: TaskSpec) -> None:
        """The same key and content under another id is the same task."""
        if spec.key is None:
            return
        twin = msgspec.structs.replace(spec, id=self._ids.mint())
        reply = await self._insist(
            lambda: client.session.call(wire.Submit(0, (twin,)), wire.Submitted)
        )
        (accepted,) = reply.tasks
        if accepted.task is None or accepted.task.id != spec.id or not accepted.duplicate:
            self._history.complain(f"the twin of {spec.id} was told {accepted}")

    async def _look(self, client: Client) -> None:
        status = await self._insist(client.status)
        tasks = await self._insist(client.list)
        if sum(status.tasks.values()) > len(self._history.prompts) or any(
            count < 0 for count in status.tasks.values()
        ):
            self._history.complain(f"miscounted: {status.tasks}")
        if unknown := [task.id for task in tasks if task.id not in self._history.prompts]:
            self._history.complain(f"listed and never handed in: {unknown}")

    async def _cancel(self, client: Client, errand: Errand) -> None:
        ids = [id for id, each in self._history.errands.items() if each is errand]
        ids = [id for id in ids if self._rng.random() < 0.7]
        self._history.cancelled.update(ids)
        reply = await self._insist(lambda: client.cancel_many(ids))
        for task in reply.tasks:
            if not task.state.ended:
                self._history.complain(f"{task.id} was cancelled and is {task.state}")

    async def _mourn(self, client: Client, id: str) -> None:
        """Look into a dead letter, and sometimes retry it or give it up."""
        rng = self._mourning
        letter = await self._insist(lambda: client.dead.show(id))
        if len(letter.errors) < letter.failures:
            self._history.complain(f"{id} failed {letter.failures} times: {letter.errors}")
        listed = await self._insist(client.dead.list)
        if id not in [each.message_id for each in listed]:
            self._history.complain(f"{id} is dead and not in the list")
        if id in self._history.expires_at or rng.random() < 0.4:
            return
        self._history.reopened.add(id)
        self._history.answers.pop(id, None)
        discard = rng.random() < 0.3
        if discard:
            self._history.cancelled.add(id)
        for _ in range(rng.choice([1, 1, 2])):
            call = client.dead.discard if discard else client.dead.retry
            await self._insist(lambda call=call: call(id))
        answer = await self._insist(lambda: client.answer(id, wait=True))
        wanted = TaskState.CANCELLED if discard else TaskState.DEAD
        overflown = self._plan.steered and answer.task.state is TaskState.EXPIRED
        if answer.task.state is not wanted and not overflown:
            self._history.complain(f"{id} was mourned and is {answer.task.state}")

    async def _stream(self, client: Client, errand: Errand) -> None:
        for prompt in errand.prompts:
            spec = self._spec(client, errand, prompt, stream=True)
            message = wire.Submit(0, (spec,), follow=True)
            answer = await self._insist(lambda message=message: self._follow(client, message))
            self._history.answered(answer)

    async def _follow(self, client: Client, message: wire.Submit) -> Answer:
        """Submit, read the chunks, and compare them with the answer."""
        channel = await client.session.open(message)
        pieces: dict[int, str] = {}
        try:
            while True:
                match await channel.receive():
                    case wire.Submitted(_, (accepted,)):
                        task = accepted_task(accepted)
                        self._history.acknowledged.setdefault(task.id, task.state.value)
                    case wire.Chunk(_, id, attempt, offset, text):
                        so_far = pieces.get(attempt, "")
                        if offset <= len(so_far):
                            pieces[attempt] = so_far[:offset] + text
                        if id != message.tasks[0].id:
                            self._history.complain(f"a chunk of {id} under another task's request")
                    case wire.AnswerReply(_, Answer() as answer):
                        self._compare(answer, pieces)
                        return answer
                    case other:
                        self._history.complain(f"a stream was told {other}")
        finally:
            channel.close()

    def _compare(self, answer: Answer, pieces: dict[int, str]) -> None:
        text = pieces.get(answer.task.attempt)
        if answer.result and text is not None and not answer.result.text.startswith(text):
            self._history.complain(f"{answer.task.id}: chunks {text!r}, {answer.result.text!r}")

    async def _job(self, client: Client, errand: Errand) -> None:
        """A file: its lines in several goes, then its results to the end."""
        name = f"/{self._name}/{errand.number}"
        call = client.session.call
        fresh = self._rng.random() < 0.3
        if fresh:
            await self._begin_in_vain(client, errand, name)
        opened = await self._insist(
            lambda: call(wire.OpenJob(0, name, "input", "options", fresh), wire.JobOpened)
        )
        lines = [
            wire.JobLine(number, f"{name}:{number}", task=self._spec(client, errand, prompt))
            for number, prompt in enumerate(errand.prompts, 1)
        ]
        self._history.wanted_lines[opened.job] = [line.custom_id or "" for line in lines]
        self._history.lines[opened.job] = []
        start = 0
        while start < len(lines):
            count = self._rng.randint(1, 4)
            part = tuple(lines[start : start + count])
            last = start + count >= len(lines)
            message = wire.SubmitLines(0, opened.job, part, last)
            for _ in range(self._rng.choice([1, 1, 2])):
                await self._insist(lambda message=message: call(message, wire.LinesSubmitted))
            start += count
        for line in lines:
            assert line.task is not None
            self._history.acknowledged.setdefault(line.task.id, "line")
        await self._read_lines(client, opened.job, ordered=self._rng.random() < 0.5)

    async def _begin_in_vain(self, client: Client, errand: Errand, name: str) -> None:
        """Hand in lines of a job that is going to be started over."""
        call = client.session.call
        opened = await self._insist(
            lambda: call(wire.OpenJob(0, name, "first input", "options"), wire.JobOpened)
        )
        lines = tuple(
            wire.JobLine(number, task=self._spec(client, errand, prompt))
            for number, prompt in enumerate(errand.prompts, 1)
        )
        self._history.cancelled.update(line.task.id for line in lines if line.task is not None)
        await self._insist(
            lambda: call(wire.SubmitLines(0, opened.job, lines), wire.LinesSubmitted)
        )

    async def _read_lines(self, client: Client, job: str, *, ordered: bool) -> None:
        after, done = 0, False
        while not done:
            message = wire.GetJobLines(0, job, after, ordered, self._rng.randint(1, 5))
            reply = await self._insist(
                lambda message=message: client.session.call(message, wire.JobLines)
            )
            self._history.lines[job] += reply.lines
            for line in reply.lines:
                after = max(after, line.cursor)
                if line.answer is not None:
                    self._history.answered(line.answer)
            done = reply.done

    def _spec(
        self,
        client: Client,
        errand: Errand,
        prompt: str,
        *,
        stream: bool = False,
        after: tuple[str, ...] = (),
    ) -> TaskSpec:
        id = self._ids.mint()
        self._history.after[id] = after
        expires_at = None
        if self._rng.random() < 0.05 and HANG not in prompt:
            expires_at = self._ids.now_ms() + self._rng.choice([0, 50, 1000])
            self._history.expires_at[id] = expires_at
        self._history.prompts[id] = prompt
        self._history.errands[id] = errand
        return TaskSpec(
            id,
            messages=(*system_of(prompt), Message("user", prompt)),
            sampling=Sampling(),
            tenant=client.session.tenant or "default",
            queue=self._queues.choice(list(QUEUES)),
            priority=self._plan.priority(self._rng.randrange(10)),
            key=id if self._rng.random() < 0.1 else None,
            after=after,
            expires_at=expires_at,
            stream=stream or self._rng.random() < 0.1,
        )

    async def _insist(
        self, call: Callable[[], Awaitable[T]], *, allowed: type[AutoGLMError] | None = None
    ) -> T:
        """Repeat a call until the server answers it; only an `allowed` refusal is all right."""
        while True:
            try:
                return await call()
            except AWAY:
                await anyio.sleep(self._rng.uniform(0.01, 0.2))
            except AutoGLMError as error:
                if allowed is not None and isinstance(error, allowed):
                    raise
                self._history.complain(f"{self._name} was refused: {error!r}")
                raise


class Operator:
    """Sets what queues do without an engine, and looks whether they do."""

    def __init__(self, universe: Universe, history: History) -> None:
        self._rng = universe.rng("operator")
        self._ids = universe.ids("operator")
        self._history = history

    async def live(self) -> None:
        rng = self._rng
        for _ in range(rng.randint(0, 4)):
            await anyio.sleep(rng.uniform(0, 2))
            name, reset = rng.choice(list(QUEUES)), rng.random() < 0.2
            degrade: Degrade | None = None if reset else rng.choice(DEGRADES)
            said = await self._insist(lambda c: c.set_queue(name, degrade, reset=reset))  # noqa: B023
            self._history.queues[name] = degrade
            listed = {each.name: each for each in await self._insist(Client.queues)}
            now = listed[name]
            kept = (now.degrade, now.source, now.default_text)  # others pause it meanwhile
            if kept != (said.degrade, said.source, said.default_text) or (
                degrade and said.degrade != degrade
            ):
                self._history.complain(f"queue {name} was set to {degrade}: {said}, {listed[name]}")

    async def _insist(self, call: Callable[[Client], Awaitable[T]]) -> T:
        return await insist(self._ids, call)


async def insist(ids: Ids, call: Callable[[Client], Awaitable[T]]) -> T:
    """What the operator is told in the end, however often the server is away meanwhile."""
    while True:
        try:
            async with Client(SOCKET, None, patience=PATIENCE, ids=ids) as client:
                return await call(client)
        except AWAY:
            await anyio.sleep(0.05)


class Vandal:
    """A client that breaks the protocol in every way it knows; it must harm only itself."""

    def __init__(self, universe: Universe, network: Network) -> None:
        self._rng = universe.rng("vandal")
        self._network = network

    async def live(self) -> None:
        for _ in range(self._rng.randint(1, 6)):
            await anyio.sleep(self._rng.uniform(0, 0.5))
            with contextlib.suppress(
                OSError, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream
            ):
                stream = await self._network.connect(SOCKET)
                with anyio.move_on_after(self._rng.uniform(0, 2)):
                    await self._act(stream)
                await stream.aclose()

    async def _act(self, stream: anyio.abc.ByteStream) -> None:
        rng = self._rng
        if rng.random() < 0.8:
            await stream.send(wire.encode_frame(wire.Hello(1)))
        for rid in range(2, rng.choice([2, 5, 400])):
            await stream.send(wire.encode_frame(self._request(rid)))
        await stream.send(rng.choice(_GARBAGE) + rng.randbytes(rng.randrange(40)))
        if rng.random() < 0.5:
            await stream.receive()
        await anyio.sleep_forever()

    def _request(self, rid: int) -> wire.Request:
        extreme = self._rng.choice([0, -1, 2**63, 2**64 - 1])
        return self._rng.choice(
            [
                wire.ListTasks(rid, tuple(TaskState) * 5000, before=extreme, limit=extreme),
                wire.GetEvents(rid, extreme, limit=extreme),
                wire.GetJobLines(rid, "no job", extreme),
                wire.Submit(rid, (TaskSpec("x" * 26, prompt="", expires_at=extreme or -1),) * 2),
                wire.SubmitLines(rid, "no job", (wire.JobLine(extreme),), last=True),
                wire.Get(rid, "nothing", wait=True),
                wire.GetStatus(rid),
                wire.Forget(rid, rid - 1),
                wire.Cancel(rid, ("nothing",) * 100, job="nothing"),
                wire.OpenJob(rid, "", fresh=True),
            ]
        )


_GARBAGE = (
    b"",
    b"\xff\xff\xff\xff",
    b"\x00\x00\x00\x01\xc1",
    b"\x00\x00\x00\x10\x83\xa4type\xa3get\xa3rid\x01\xa2id\xa1\xff",
    (b"\x82\xa4type\xa3get\xa1x" + b"\x91" * 5000).join((b"\x00\x00\x13\x93", b"")),
    wire.encode_frame(wire.Hello(7, protocol=99)),
    wire.encode_frame(wire.GetStatus(0)),
)
