"""A blow: what an actor is made to die of, once, in the middle of its work. For failure drills.

It falls as the actor takes up its next messages: the first of them is the one in hand, lost as in
any failure of the actor's own, with its asker told; the others come back.
"""

from __future__ import annotations


class Blow:
    """Shared by the mailboxes of one actor."""

    __slots__ = ("error", "idle", "spent")

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.idle = False
        """It need not wait until there is a message."""
        self.spent = False

    def falls(self, messages: int) -> bool:
        """Whether now, with so many messages taken up; it is spent then."""
        if self.spent or not (messages or self.idle):
            return False
        self.spent = True
        return True
