"""What all messages have in common, and the numbers both sides go by."""

from __future__ import annotations

import msgspec

PROTOCOL_VERSION = 1
TASKS_PER_SUBMIT_MAX = 4096
"""Tasks, lines or ids in one request: bounds the transaction that others wait for."""
PAGE_MAX = 1000
LIST_MAX = 65_536
"""Items in a list of a request: more are not even decoded. A frame full of the smallest tasks
would be a gigabyte of them.
"""


class Message(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type"):
    rid: int
