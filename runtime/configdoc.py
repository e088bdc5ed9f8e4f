"""How a field of the configuration says what it is for.

What stands here is all there is: `autoglm config show`, the JSON schema and docs/configuration.md
are made from it.
"""

from __future__ import annotations

import msgspec


def doc(text: str) -> msgspec.Meta:
    """What a field is for, in plain words and with its unit; stands in its `Annotated`."""
    return msgspec.Meta(description=text)
