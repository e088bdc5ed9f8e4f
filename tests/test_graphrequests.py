"""A graph in one submit, at the frontdoor: put into an order, or refused as a whole."""

from __future__ import annotations

from autoglm import wire
from autoglm.graph import NOT_STORED
from autoglm.types import Task, TaskSpec, TaskState
from runtime.store.graphprotocol import InsertGraph
from tests.test_frontdoor import Stage, play


def spec(number: int, *after: int, queue: str = "normal") -> TaskSpec:
    names = tuple(map(name, after))
    return TaskSpec(name(number), prompt="hello", after=names, queue=queue)


def name(number: int) -> str:
    return f"{number:026}"


async def refused(stage: Stage, *specs: TaskSpec) -> list[str | None]:
    """The codes that a graph is refused with; nothing reaches the persister."""
    person = await stage.visit()
    await person.say(wire.Submit(2, specs, atomic=True))
    reply = await person.hear()
    assert isinstance(reply, wire.Submitted)
    assert not stage.persister.drain_nowait()
    return [each.error.code if each.error and each.task is None else None for each in reply.tasks]


def test_a_graph_is_handed_on_in_an_order_it_can_be_stored_in_and_answered_in_its_own() -> None:
    async def scene(stage: Stage) -> None:
        person = await stage.visit()
        specs = (spec(1, 3), spec(2, 1), spec(3))
        await person.say(wire.Submit(2, specs, atomic=True))
        await stage.clock.sleep(0.01)
        (message,) = stage.persister.drain_nowait()
        assert isinstance(message.write, InsertGraph)
        assert [task.id for task in message.write.tasks] == [name(3), name(1), name(2)]
        assert message.reply is not None
        stored = [Task(each.id, TaskState.PENDING) for each in message.write.tasks]
        message.reply.send(tuple(map(wire.Accepted, stored)))
        reply = await person.hear()
        assert isinstance(reply, wire.Submitted)
        assert [each.task and each.task.id for each in reply.tasks] == [name(1), name(2), name(3)]

    play(scene)


def test_one_that_is_wrong_refuses_the_others_of_its_graph() -> None:
    async def scene(stage: Stage) -> None:
        wrong = spec(2, 1, queue="nowhere")
        assert await refused(stage, spec(1), wrong) == [NOT_STORED, "invalid_request"]

    play(scene)


def test_a_circle_names_those_in_it_and_no_others() -> None:
    async def scene(stage: Stage) -> None:
        codes = await refused(stage, spec(1), spec(2, 3), spec(3, 2), spec(4, 2))
        assert codes == [NOT_STORED, "invalid_request", "invalid_request", NOT_STORED]

    play(scene)


def test_an_id_that_stands_twice_in_a_graph_is_refused() -> None:
    async def scene(stage: Stage) -> None:
        assert await refused(stage, spec(1), spec(1)) == [NOT_STORED, "invalid_request"]

    play(scene)


def test_more_names_than_one_transaction_can_enter_are_refused() -> None:
    async def scene(stage: Stage) -> None:
        person = await stage.visit()
        wide = tuple(spec(number, *range(5000, 5000 + 4096)) for number in range(17))
        await person.say(wire.Submit(2, wide))
        reply = await person.hear()
        assert isinstance(reply, wire.Error)
        assert (reply.code, "65536" in reply.message) == ("invalid_request", True)

    play(scene)
