"""A client outside the place it was opened in: one sentence."""

from __future__ import annotations

import pytest

from autoglm import Client, UsageError


async def test_a_client_that_is_not_entered_says_how_it_is() -> None:
    client = Client("nowhere.sock")
    with pytest.raises(UsageError, match="use it in `async with"):
        await client.generate("hello")
    with pytest.raises(UsageError, match="use it in `async with"):
        await anext(aiter(client.map(["hello"])))
