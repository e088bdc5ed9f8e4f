"""One answer of the simulated engine: how long it is to be, and its text as far as it is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

import anyio

from model.engine import EngineRequest, continuable
from model.simulated_answer import Pieces, Words


@dataclass(slots=True, eq=False)
class Generation:
    """One admitted request on its way through the steps."""

    prompt_tokens: int
    wanted: int
    answer: Words | Pieces
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
        answer: Words | Pieces,
        prompt_tokens: int,
        wanted: int,
        on_text: Callable[[str], None] | None,
    ) -> Self:
        """From the beginning, or from where an earlier attempt had come to."""
        made, continued = cls(prompt_tokens, wanted, answer, on_text), request.continued
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
            return self.answer.text(self.made)
        return self.begun + "".join(map(self.answer.token, range(self.before, self.made)))

    def advance(self, tokens: int) -> None:
        """Make the next `tokens` tokens."""
        first, self.made = self.made, self.made + tokens
        if self.on_text is None:
            return
        for token in range(first, self.made):
            if text := self.answer.token(token):
                self.on_text(text)
