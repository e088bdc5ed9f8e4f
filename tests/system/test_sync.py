"""The blocking client against the real server: every call, from any place a thread may wait in."""

from __future__ import annotations

import asyncio
import inspect
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from autoglm import Client as Awaiting
from autoglm import InvalidRequest, NotFound, ServerNotRunning, TaskDead, TaskState, sync
from autoglm.sync import Client
from tests.system.real import INSTANT, Server, environment, fingerprint

pytestmark = pytest.mark.system

SLOW = ("--engine", "simulated", "--set", "engine.simulated.step_ms=5")
FAULTS = (*INSTANT, "--set", "engine.faults=true")
ENDLESS = "[[tokens:1000000]]"


class City(msgspec.Struct):
    name: str


@pytest.fixture
def instant(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path, *FAULTS) as server:
        yield server


def test_it_has_every_call_of_the_async_client() -> None:
    def public(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    not_for_both = {"session", "mapping"}
    assert public(Awaiting) - not_for_both <= public(Client)
    assert public(type(Awaiting("x").dead)) <= public(sync.DeadLetters)
    for name in public(Awaiting) - not_for_both:
        assert not inspect.iscoroutinefunction(getattr(Client, name)), name


def test_a_task_goes_from_hand_to_answer(instant: Server) -> None:
    with Client(instant.socket) as client:
        task = client.submit("hello", max_tokens=3)
        assert client.result(task).text.startswith(fingerprint("hello"))
        assert client.generate("bern", response_format=City).parsed == City(fingerprint("bern"))
        assert client.result(client.submit("x", response_format=City)).parse(City)
        assert client.get(task).state is TaskState.SUCCEEDED
        assert "".join(client.stream("[[tokens:30]]")).startswith(fingerprint("[[tokens:30]]"))
        assert [event.to_state for event in client.events(task)][-1] == "succeeded"
        assert len(client.list()) == len(list(client.tasks())) == 4
        assert client.status().tasks["succeeded"] == 4
        assert client.server.engine == "simulated"
        with pytest.raises(NotFound):
            client.get("nowhere")
        client.submit("[[invalid]]")
        while not (letters := client.dead.list()):
            pass
        assert client.dead.discard(letters[0].message_id).state is TaskState.CANCELLED


def test_map_keeps_the_order_the_bound_and_the_place_of_an_error(instant: Server) -> None:
    drawn = taken = most = 0
    threads: set[int] = set()

    def prompts() -> Iterator[str]:
        nonlocal drawn, most
        for number in range(2000):
            drawn += 1
            most = max(most, drawn - taken)
            threads.add(threading.get_ident())
            yield f"prompt {number}"

    with Client(instant.socket) as client:
        for number, result in enumerate(client.map(prompts(), in_flight=64)):
            taken += 1
            assert result.text.startswith(fingerprint(f"prompt {number}"))
        outcomes = list(client.map(["one", "[[invalid]]", "three"], return_errors=True))
        assert [type(each).__name__ for each in outcomes] == ["Result", "TaskDead", "Result"]
        with pytest.raises(TaskDead):
            list(client.map(["[[invalid]]"]))
        unordered = client.map(map(str, range(100)), ordered=False)
        assert len({result.task.id for result in unordered}) == 100
        assert list(client.map([])) == []
        with pytest.raises(InvalidRequest, match="in_flight"):
            list(client.map(["one"], in_flight=0))
    assert (taken, most <= 64 + 1, threads) == (2000, True, {threading.get_ident()})


def test_what_drawing_raises_comes_after_all_that_was_drawn(instant: Server) -> None:
    def prompts() -> Iterator[str]:
        yield "one"
        yield "two"
        raise LookupError("no more")

    with Client(instant.socket) as client:
        results = client.map(prompts())
        assert next(results).text.startswith(fingerprint("one"))
        assert next(results).text.startswith(fingerprint("two"))
        with pytest.raises(LookupError):
            next(results)


def test_a_loop_that_is_left_early_leaves_the_client_usable(tmp_path: Path) -> None:
    with Server(tmp_path, *SLOW) as server, Client(server.socket) as client:
        for _ in client.stream("[[tokens:500]]"):
            break
        for _ in client.map(map(str, range(1000)), in_flight=8):
            break
        assert client.generate("after").text


def test_it_works_inside_a_running_event_loop_and_from_many_threads(instant: Server) -> None:
    async def notebook() -> str:
        with Client(instant.socket) as client:
            return client.generate("cell").text

    assert asyncio.run(notebook()).startswith(fingerprint("cell"))
    texts: list[str] = []
    with Client(instant.socket) as client:

        def ask(number: int) -> None:
            texts.append(client.generate(f"thread {number}").text)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(texts) == 8


def test_it_connects_when_it_is_used_and_again_after_it_was_closed(tmp_path: Path) -> None:
    client = Client(tmp_path / "autoglm.sock")
    with pytest.raises(ServerNotRunning, match="autoglm serve"):
        client.status()
    with Server(tmp_path, *INSTANT):
        assert client.generate("one").text
        client.close()
        client.close()
        assert client.generate("two").text
        client.close()


PROGRAM = """
import sys
from autoglm.sync import Client
client = Client(sys.argv[1])
print("begins", flush=True)
try:
    client.generate("[[tokens:1000000]]")
except KeyboardInterrupt:
    print("interrupted", client.list()[0].state, flush=True)
"""


def test_ctrl_c_ends_the_wait_and_cancels_the_task(tmp_path: Path) -> None:
    with Server(tmp_path, *SLOW) as server:
        script = subprocess.Popen(
            [sys.executable, "-P", "-c", PROGRAM, str(server.socket)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        with Client(server.socket) as client:
            while not client.list(state="running"):
                assert script.poll() is None
            script.send_signal(signal.SIGINT)
            said, _ = script.communicate(timeout=30)
    assert said.split() == ["begins", "interrupted", "cancelled"]
    assert script.returncode == 0
