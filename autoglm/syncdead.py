"""Dead letters for callers that block."""

from __future__ import annotations

from collections.abc import Callable

from autoglm.blocking import Face, Loop, blocking, iterating
from autoglm.deadletters import DeadLetters as AwaitingDeadLetters


class DeadLetters(Face):
    """Dead letters, as `autoglm.Client.dead` has them."""

    def __init__(self, target: AwaitingDeadLetters, loop: Callable[[], Loop]) -> None:
        self.awaited = target
        self.loop = loop

    letters = iterating(AwaitingDeadLetters.letters)
    show = blocking(AwaitingDeadLetters.show)
    retry = blocking(AwaitingDeadLetters.retry)
    discard = blocking(AwaitingDeadLetters.discard)
    retry_all = blocking(AwaitingDeadLetters.retry_all)
    discard_all = blocking(AwaitingDeadLetters.discard_all)
    edit = blocking(AwaitingDeadLetters.edit)
    replace = blocking(AwaitingDeadLetters.replace)
    settle = blocking(AwaitingDeadLetters.settle)
    list = blocking(AwaitingDeadLetters.list)
