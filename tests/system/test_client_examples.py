"""Every call of the client has an example, and each of them runs."""

from __future__ import annotations

import contextlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from autoglm import AutoGLM, Client, Conflict, GLMConfig, Result, sync
from autoglm.deadletters import DeadLetters
from tests.system.real import INSTANT, Server

pytestmark = pytest.mark.system

WITHOUT = {"session", "mapping", "drill", "dead", "replace", "settle", "edit", "choices"}
"""Not for every day, or told elsewhere; `edit` of dead letters, whose task must be dead."""
WITHOUT_ALL = {"retry_all", "discard_all"}


_OUT_OF_PLACE = re.compile(r"^(?:async|await|for|with|if|print|\w+ =)\b.*[:)]$", re.MULTILINE)
"""Code that the formatter took for prose: there has to be a sentence behind an example."""


class City(msgspec.Struct):
    name: str


def documented(kind: type) -> Iterator[tuple[str, str]]:
    """The names of a class, itself first, and what their docstrings say."""
    yield kind.__name__, inspect.getdoc(kind) or ""
    for name in sorted(dir(kind)):
        found = inspect.getattr_static(kind, name)
        callable_or_property = callable(getattr(kind, name)) or isinstance(found, property)
        if not name.startswith("_") and callable_or_property:
            yield name, inspect.getdoc(getattr(kind, name)) or ""


def examples(doc: str) -> list[str]:
    blocks = re.findall(r"(?:^    .*\n|^\n)+", f"{doc}\n", re.MULTILINE)
    return [textwrap.dedent(block).strip("\n") for block in blocks if block.strip()]


def missing(kind: type) -> list[str]:
    without = WITHOUT | WITHOUT_ALL if kind in (Client, sync.Client) else WITHOUT_ALL | WITHOUT
    return [
        name
        for name, doc in documented(kind)
        if (name not in without and not examples(doc)) or _OUT_OF_PLACE.search(doc)
    ]


def written(code: str, *, waits: bool) -> Any:
    """A function that runs an example, given what examples take for granted."""
    head = f"{'async ' if waits else ''}def example(client, task, operator, model):\n"
    scope: dict[str, Any] = {
        "Client": Client if waits else sync.Client,
        "City": City,
        "msgspec": msgspec,
        "AutoGLM": AutoGLM,
        "Conflict": Conflict,
        "contextlib": contextlib,
        "GLMConfig": GLMConfig,
    }
    # What is assigned in an example would hide what is given: so given names are arguments.
    exec(head + textwrap.indent(code, "    "), scope)
    return scope["example"]


@pytest.mark.parametrize("kind", [Client, sync.Client, AutoGLM, Result])
def test_every_public_name_has_an_example(kind: type) -> None:
    assert missing(kind) == []


async def test_the_examples_of_the_client_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOGLM_DATA_DIR", str(tmp_path))
    with Server(tmp_path, *INSTANT) as server, anyio.fail_after(120):
        for kind in (Client, DeadLetters, Result):
            for name, doc in documented(kind):
                for code in examples(doc):
                    async with Client(server.socket) as client:
                        task = await client.submit("an example")
                        await client.result(task)
                        run = written(code, waits=True)
                        try:
                            await run(client, task, None, None)
                        except Exception as error:
                            raise AssertionError(f"{kind.__name__}.{name}:\n{code}") from error


def test_the_examples_of_the_blocking_client_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOGLM_DATA_DIR", str(tmp_path))
    with Server(tmp_path, *INSTANT) as server, sync.Client(server.socket) as client:
        task = client.submit("an example")
        client.result(task)
        for name, doc in documented(sync.Client):
            for code in examples(doc):
                try:
                    written(code, waits=False)(client, task, None, None)
                except Exception as error:
                    raise AssertionError(f"{name}:\n{code}") from error


def test_the_examples_of_a_model_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOGLM_DATA_DIR", str(tmp_path))
    with AutoGLM.load("tiny", engine="simulated") as model:
        for name, doc in documented(AutoGLM):
            for code in examples(doc):
                try:
                    written(code, waits=False)(None, None, None, model)
                except Exception as error:
                    raise AssertionError(f"{name}:\n{code}") from error
