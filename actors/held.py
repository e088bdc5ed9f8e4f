"""Answers as far as they are written, for readers that come late. Without I/O.

Provisional, like the chunks they are made of: what is held is let go of when the task has ended,
when another attempt begins, or when there is too much of it, the oldest first.
"""

from __future__ import annotations

from model.engine import Progress

HELD_CHARS_MAX = 16 * 1024 * 1024
"""Of all answers together."""


class _Text:
    """What one attempt has written, from its beginning on."""

    __slots__ = ("attempt", "chars", "pieces")

    def __init__(self, attempt: int) -> None:
        self.attempt = attempt
        self.pieces: list[str] = []
        self.chars = 0


class Held:
    def __init__(self, chars_max: int = HELD_CHARS_MAX) -> None:
        self._max = chars_max
        self._texts: dict[str, _Text] = {}
        self.chars = 0

    def __len__(self) -> int:
        return len(self._texts)

    def take(self, piece: Progress) -> None:
        """Add what was just written. Of an answer whose beginning was missed nothing is held."""
        text = self._texts.get(piece.id)
        if text is None or text.attempt < piece.attempt:
            self.drop(piece.id)
            if piece.offset:
                return
            text = self._texts[piece.id] = _Text(piece.attempt)
        if text.attempt != piece.attempt or text.chars != piece.offset:
            return
        text.pieces.append(piece.text)
        text.chars += len(piece.text)
        self.chars += len(piece.text)
        while self.chars > self._max:
            self.drop(next(iter(self._texts)))

    def of(self, task: str) -> tuple[int, str] | None:
        """The attempt and its text from the first character on, if any is held."""
        text = self._texts.get(task)
        if text is None:
            return None
        text.pieces = ["".join(text.pieces)]
        return text.attempt, text.pieces[0]

    def drop(self, task: str) -> None:
        text = self._texts.pop(task, None)
        if text is not None:
            self.chars -= text.chars
