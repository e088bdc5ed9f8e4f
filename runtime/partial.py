"""An answer as far as it was generated: what an engine needs to go on from there."""

from __future__ import annotations

import msgspec


class Partial(msgspec.Struct, frozen=True, omit_defaults=True):
    """The beginning of an answer, by the engine that made it and for one of the same model."""

    tokens: tuple[int, ...]
    """What was generated, by the model's own numbers."""
    text: str = ""
    """What came out of them, of an engine that can't tell that from the tokens."""
    prompt_tokens: int = 0
