"""Long answers in the whole server, in virtual time: whoever dies, they are what they would have
been, and hardly any of their tokens is made twice.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import anyio
import msgspec
import pytest

from model.generation import Generation
from tests.simulation.test_isolation import LIVENESS_S, Ward, config

TOKENS, ANSWERS = 512, 6
AGAIN_MAX = 0.05
FILLER = ("and", "so", "it", "goes", "on", "word", "by", "word")


class Dangerous(Ward):
    """An engine dies at random, and, when `restarted`, later its server as well."""

    def endanger(self, *, restarted: bool) -> None:
        self._rng = self._universe.rng("dangers")
        self._restarted = restarted

    async def _main(self) -> None:
        await self._insert(self._prompts)
        self._start()
        with anyio.fail_after(LIVENESS_S):
            await anyio.sleep(self._rng.uniform(0.3, 4))
            assert self._engines.kill_one(0)
            if self._restarted:
                await anyio.sleep(self._rng.uniform(6, 8))  # an engine's breaker is open for 5 s
                await self._restart()
            while self._open_tasks():  # noqa: ASYNC110 - others work on them
                await anyio.sleep(0.01)

    @property
    def texts(self) -> list[str]:
        query = "SELECT text FROM result JOIN task ON seq = task ORDER BY task"
        return [text for (text,) in self._store.cx.execute(query)]


def undisturbed(prompt: str) -> str:
    digest = hashlib.sha256(prompt.encode()).hexdigest()[:16]
    return " ".join([digest, *(FILLER[token % len(FILLER)] for token in range(1, TOKENS))])


@pytest.mark.parametrize("number", range(6))
def test_an_answer_survives_deaths_and_makes_less_than_a_twentieth_of_it_again(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    advance = Generation.advance

    def counted(generation: Generation, tokens: int) -> None:
        made.append(tokens)
        advance(generation, tokens)

    monkeypatch.setattr(Generation, "advance", counted)
    plan = config(4, step_ms=10)
    engine = msgspec.structs.replace(plan.engine, checkpoint_tokens=16)
    prompts = [f"{number} {place} [[tokens:{TOKENS}]]" for place in range(ANSWERS)]
    plan = msgspec.structs.replace(plan, engine=engine)
    ward = Dangerous(number, tmp_path, plan, prompts)
    ward.endanger(restarted=number % 2 == 1)
    ward.run()
    ward.check()
    assert ward.texts == [undisturbed(prompt) for prompt in prompts]
    again = sum(made) - TOKENS * ANSWERS
    assert 0 < again < AGAIN_MAX * TOKENS * ANSWERS
