"""Planted bugs: one line of the real code changed. A simulation that does not find them would
prove nothing.
"""

from __future__ import annotations

import contextlib
import inspect
import textwrap
from collections.abc import Generator, Sequence
from types import FunctionType
from typing import Any
from unittest.mock import patch

import msgspec

from actors.messages import Commit
from actors.persister import Persister
from actors.policy import retry
from actors.policy.window import Window
from autoglm.types import Task, TaskState
from autoglm.wire import Accepted
from model.engine import Completion
from model.hosted import HostedEngine
from runtime.clock import SteadyWall
from runtime.mailbox import Mailbox
from runtime.store import execution, opening
from runtime.store.protocol import InsertTasks
from runtime.store.transaction import Transaction


class Mutant(msgspec.Struct, frozen=True):
    """In `function` of `owner` (a module or a class), `before` becomes `after`."""

    owner: Any
    function: str
    before: str
    after: str

    @contextlib.contextmanager
    def planted(self) -> Generator[None]:
        """The function's code is exchanged, so that whoever holds the function has the bug."""
        original: FunctionType = getattr(self.owner, self.function)
        source = textwrap.dedent(inspect.getsource(original))
        if source.count(self.before) != 1:
            raise AssertionError(f"{self.function} has changed: {self.before!r} is not in it once")
        names: dict[str, Any] = dict(original.__globals__)
        exec(source.replace(self.before, self.after), names)
        healthy = original.__code__
        helpers = {"promise": _promise, "swapped": _swapped}
        with patch.dict(original.__globals__, helpers):
            original.__code__ = names[self.function].__code__
            try:
                yield
            finally:
                original.__code__ = healthy


def _promise(batch: Sequence[Commit]) -> None:
    """Acknowledge tasks that are not committed yet."""
    for message in batch:
        if isinstance(message.write, InsertTasks) and message.reply is not None:
            tasks = (Task(spec.id, TaskState.PENDING) for spec in message.write.tasks)
            message.reply.send(tuple(Accepted(task) for task in tasks))


def _swapped(completions: Sequence[Completion]) -> list[Completion]:
    """The same completions with their texts in reverse order."""
    texts = [completion.text for completion in reversed(completions)]
    return [
        msgspec.structs.replace(completion, text=text)
        for completion, text in zip(completions, texts, strict=True)
    ]


MUTANTS = {
    "tasks are acknowledged before the commit": Mutant(
        Persister,
        "_commit",
        "        try:\n            if health",
        "        promise(batch)\n        try:\n            if health",
    ),
    "running tasks are not recovered": Mutant(
        execution, "put_back", "for seq, attempt, rank in gone:", "for seq, attempt, rank in []:"
    ),
    "results are swapped within a batch": Mutant(
        HostedEngine,
        "_take",
        "for completion in completions:",
        "for completion in swapped(completions):",
    ),
    "a late attempt is not fenced off": Mutant(
        execution, "_record", "AND attempt = ?", "AND attempt >= ?"
    ),
    "poison is tried for ever": Mutant(
        retry, "_lost", "if alone and is_suspect(task):", "if False:"
    ),
    "commits are not synced": Mutant(
        opening, "prepare", "PRAGMA synchronous = FULL", "PRAGMA synchronous = NORMAL"
    ),
    "a jump of the clock is followed": Mutant(
        SteadyWall,
        "now_ms",
        "return self._wall_ms + int((self._clock.monotonic() - self._began) * 1000)",
        "return self._clock.wall_ms()",
    ),
    "ranks go back with the clock": Mutant(
        Transaction, "__init__", "max(counters.logical_ms, now_ms)", "now_ms"
    ),
    "a crash loses what was not begun": Mutant(
        Mailbox, "restore", "self._queue.extendleft(reversed(lent[taken:]))", "pass"
    ),
    "arrivals during a refill are forgotten": Mutant(
        Window, "arrived", "self._meanwhile.append(key)", "pass"
    ),
}
