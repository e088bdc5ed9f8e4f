"""One answer of the simulated engine: how long it is to be, and its text as far as it is made."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Self

import anyio

from model.engine import EngineRequest, continuable

_FILLER: Final = ("and", "so", "it", "goes", "on", "word", "by", "word")


@dataclass(slots=True, eq=False)
class Generation:
    """One admitted request on its way through the steps."""

    prompt_tokens: int
    wanted: int
    digest: str
    """The first token."""
    on_text: Callable[[str], None] | None
    begun: str = ""
    """What an earlier attempt had made: so many tokens."""
    before: int = 0
    made: int = 0
    """Tokens, those made before included."""
    wake: anyio.Event = field(default_factory=anyio.Event)
    """Set when the answer is complete, or when it is this call's turn to drive."""

    @classmethod
    def of(
        cls,
        request: EngineRequest,
        prompt_tokens: int,
        wanted: int,
        on_text: Callable[[str], None] | None,
    ) -> Self:
        """From the beginning, or from where an earlier attempt had come to."""
        made, continued = cls(prompt_tokens, wanted, _digest(request), on_text), request.continued
        if continued is not None and continuable(request.sampling):
            made.begun = continued.text
            made.before = made.made = len(continued.tokens)
            made.wanted = max(wanted, made.made)
        return made

    @property
    def prefill(self) -> int:
        """Tokens that are computed before the next one can be made."""
        return self.prompt_tokens + self.before

    @property
    def text(self) -> str:
        """As far as it is made."""
        if not self.before:
            return self.digest + _filler(self.made) if self.made else ""
        return self.begun + "".join(f" {_word(each)}" for each in range(self.before, self.made))

    def advance(self, tokens: int) -> None:
        """Make the next `tokens` tokens."""
        first, self.made = self.made, self.made + tokens
        if self.on_text is None:
            return
        for token in range(first, self.made):
            self.on_text(f" {_word(token)}" if token else self.digest)


def _digest(request: EngineRequest) -> str:
    users = (message.content for message in reversed(request.messages) if message.role == "user")
    text = next(users, request.prompt or "")
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _word(token: int) -> str:
    return _FILLER[token % len(_FILLER)]


@lru_cache(maxsize=1024)
def _filler(tokens: int) -> str:
    """All words of an answer of that many tokens but the first."""
    rounds, rest = divmod(tokens, len(_FILLER))
    words = "".join(f" {word}" for word in _FILLER)
    last = "".join(f" {word}" for word in _FILLER[:rest])
    return (words * rounds + last)[len(_FILLER[0]) + 1 :]
