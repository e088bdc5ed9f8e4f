"""The simulated engine: the timing of a continuously batching engine, without a model.

It is what tests, drills and the deterministic simulation run on: the same requests at the same
times give the same answers at the same times. A token is a word, of prompts and answers alike.

- The answer begins with the first 16 hex digits of SHA-256 of the last user message (UTF-8, marks
  included); filler words follow up to its number of tokens. Asked for JSON, it is the plainest
  value that the schema allows, with those digits as its texts.
- A stop string, and what would follow it, is not in the answer.
- Several answers to one prompt are the same text, in one slot, and it is certain of each token.
- One step takes `step_ms`, however many requests run, and gives each of them one token. Requests
  that joined meanwhile take part in the next step, which is longer by their prefill: prompt tokens
  / `prefill_tok_s`. A request beyond `max_num_seqs` waits for a slot, first come, first served.
- An answer that is continued goes on after the text that there was; what is prefilled is the prompt
  and all tokens made before.
- Marks in the prompt act when `engine.faults` is on: `[[crash]]` kills the process when the request
  is admitted, `[[hang]]` stops all progress, `[[error]]` fails the attempt, `[[invalid]]` fails the
  request for good, `[[slow:S]]` adds S seconds before the first token. `[[tokens:N]]` sets the
  number of tokens, always.

There is no task that steps: one of the waiting `generate` calls drives the steps for all, and
hands over when it leaves. Without delays a request is answered within its own call.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import anyio
import anyio.lowlevel

from autoglm.types import Choice
from model.engine import (
    Completion,
    EngineInfo,
    EngineLoad,
    EngineRequest,
    RequestFailed,
    continuable,
)
from model.generation import Generation
from model.simulated_answer import Pieces, Words, answer_to, certain, ended_by_stop
from runtime.clock import Clock
from runtime.config import EngineConfig, SimulatedConfig
from runtime.partial import Partial

CONTEXT_TOKENS_DEFAULT: Final = 8192
"""What fits when `engine.max_model_len` is not set: as much as the packaged model holds."""

_MARK: Final = re.compile(r"\[\[(crash|hang|error|invalid|slow|tokens)(?::(\d+(?:\.\d+)?))?\]\]")


def kill_own_process() -> None:
    """Die as an engine that crashed: at once, without unwinding or flushing anything."""
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Timing:
    """How long the engine takes, in seconds."""

    step_s: float
    prefill_token_s: float

    @classmethod
    def of(cls, simulated: SimulatedConfig) -> Timing:
        rate = simulated.prefill_tok_s
        return cls(simulated.step_ms / 1000, 1 / rate if rate else 0.0)

    def step(self, prefill_tokens: int) -> float:
        """One step that requests join whose prompts have so many tokens in all."""
        return self.step_s + prefill_tokens * self.prefill_token_s


class SimulatedEngine:
    """model.engine.Engine by arithmetic; see the module for what it promises.

    `kill` is what `[[crash]]` calls. Should it return, as in a simulation, the engine behaves like
    the dead process it stands for: nothing comes out of it any more.
    """

    def __init__(
        self,
        config: EngineConfig,
        clock: Clock,
        kill: Callable[[], None] = kill_own_process,
    ) -> None:
        self._timing = Timing.of(config.simulated)
        self._config = config
        self._clock = clock
        self._kill = kill
        self._context = config.max_model_len or CONTEXT_TOKENS_DEFAULT
        slots = config.max_num_seqs
        self._slots = anyio.Semaphore(slots, max_value=slots, fast_acquire=True)
        self._arrived: dict[Generation, None] = {}
        """Have a slot and wait for the next step to begin."""
        self._running: dict[Generation, None] = {}
        """Take part in the step under way."""
        self._driven = False
        """One of the calls drives the steps."""
        self._step_ends: float | None = None
        """When the step under way ends; outlives a driver that is cancelled in the middle."""
        self._step_starts: float | None = None
        """When the next step begins if it follows on without a pause, so that late timers
        of the event loop do not slow the engine down."""
        self._by_id: dict[str, Generation] = {}
        """Admitted requests that can be continued."""
        self._halted = False
        self._prompt_tokens = 0
        self._completion_tokens = 0

    async def load(self) -> EngineInfo:
        await self._clock.sleep(self._config.simulated.load_s)
        return EngineInfo(
            model=self._config.model,
            slots=self._config.max_num_seqs,
            max_model_len=self._context,
        )

    async def generate(
        self,
        request: EngineRequest,
        on_text: Callable[[str], None] | None,
    ) -> Completion:
        """See Engine.generate. What of the sampling chooses tokens makes no difference here."""
        texts = [request.prompt or "", *(message.content for message in request.messages)]
        marks = _marks(texts)
        prompt_tokens = sum(len(text.split()) for text in texts)
        room = self._context - prompt_tokens
        if room < 1:
            raise RequestFailed(
                "prompt_too_long",
                f"the prompt has {prompt_tokens} tokens; the model takes at most {self._context}, "
                "prompt and answer together",
                permanent=True,
            )
        answer = answer_to(request)
        wanted, finish_reason = self._length(request, marks, room, answer)
        if (ended := ended_by_stop(answer, wanted, request)) is not None:
            answer, wanted, finish_reason = ended, ended.tokens, "stop"
        generation = Generation.of(request, answer, prompt_tokens, wanted, on_text)
        async with self._slots:
            if continuable(request.sampling):
                self._by_id[request.id] = generation
            try:
                if self._config.faults and marks:
                    await self._act(marks)
                if on_text is not None and generation.begun:
                    on_text(generation.begun)
                await self._decode(generation)
            finally:
                if self._by_id.get(request.id) is generation:
                    del self._by_id[request.id]
        text, count = generation.text, request.sampling.n or 1
        logprobs = certain(request, answer, generation.made)
        return Completion(
            id=request.id,
            attempt=request.attempt,
            text=text,
            finish_reason=finish_reason,
            prompt_tokens=prompt_tokens,
            completion_tokens=generation.made * count,
            before=generation.before,
            logprobs=logprobs,
            others=(Choice(text, finish_reason, logprobs),) * (count - 1),
        )

    def reading(self) -> EngineLoad:
        held = sum(each.prompt_tokens + each.made for each in (*self._running, *self._arrived))
        return EngineLoad(
            running=self._config.max_num_seqs - self._slots.value,
            waiting=self._slots.statistics().tasks_waiting,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
            kv_usage=min(1.0, held / (self._config.max_num_seqs * self._context)),
        )

    def made(self, id: str) -> int:
        return self._by_id[id].made if id in self._by_id else 0

    def partial(self, id: str) -> Partial | None:
        """See Engine.partial. Tokens are numbered through; the first is the hash."""
        generation = self._by_id.get(id)
        if generation is None or not generation.made:
            return None
        tokens = tuple(range(generation.made))
        return Partial(tokens, generation.text, generation.prompt_tokens)

    def close(self) -> None:
        self._halted = True

    def _length(
        self, request: EngineRequest, marks: dict[str, str], room: int, answer: Words | Pieces
    ) -> tuple[int, str]:
        """Tokens of the answer, and why it ends there."""
        sampling = request.sampling
        limit = room if sampling.max_tokens is None else max(1, min(room, sampling.max_tokens))
        if isinstance(answer, Pieces):
            return (answer.tokens, "stop") if answer.tokens <= limit else (limit, "length")
        natural = int(float(marks.get("tokens") or self._config.simulated.output_tokens))
        natural = limit + 1 if sampling.ignore_eos else max(natural, sampling.min_tokens or 1)
        return (natural, "stop") if natural <= limit else (limit, "length")

    async def _act(self, marks: dict[str, str]) -> None:
        """What the marks of an admitted request do to it, or to the whole engine."""
        if "crash" in marks:
            self._halted = True
            self._kill()
        if "hang" in marks:
            self._halted = True
        if "invalid" in marks:
            raise RequestFailed("invalid_request", "the prompt holds [[invalid]]", permanent=True)
        if "error" in marks:
            raise RequestFailed("engine_error", "the prompt holds [[error]]", permanent=False)
        if not self._halted and "slow" in marks:
            await self._clock.sleep(float(marks["slow"] or 0))

    async def _decode(self, generation: Generation) -> None:
        """Take part in the steps until the answer is complete."""
        if not (self._timing.step(generation.prefill) or self._halted):
            self._prompt_tokens += generation.prefill
            self._advance(generation, generation.wanted - generation.made)
            return
        self._arrived[generation] = None
        try:
            while generation.made < generation.wanted:
                if self._driven:
                    await generation.wake.wait()
                    generation.wake = anyio.Event()
                else:
                    await self._drive_one_step()
        finally:
            self._leave(generation)

    async def _drive_one_step(self) -> None:
        self._driven = True
        try:
            if self._step_ends is None:
                await anyio.lowlevel.checkpoint()  # who arrives at the same moment joins
                self._begin_step()
            assert self._step_ends is not None
            await self._clock.sleep(max(0.0, self._step_ends - self._clock.monotonic()))
            if self._halted:
                await anyio.sleep_forever()
            self._end_step(self._step_ends)
        finally:
            self._driven = False

    def _begin_step(self) -> None:
        now = self._clock.monotonic()
        prefill = sum(generation.prefill for generation in self._arrived)
        self._running |= self._arrived
        self._arrived.clear()
        self._prompt_tokens += prefill
        step_s = self._timing.step_s
        start = now if self._step_starts is None else max(self._step_starts, now - step_s)
        self._step_ends = start + self._timing.step(prefill)

    def _end_step(self, ended: float) -> None:
        self._step_ends, self._step_starts = None, ended
        for generation in list(self._running):
            left = generation.wanted - generation.made
            self._advance(generation, 1 if self._timing.step_s else left)
            if generation.made == generation.wanted:
                del self._running[generation]
                generation.wake.set()

    def _advance(self, generation: Generation, tokens: int) -> None:
        """Make the next `tokens` tokens of an answer."""
        generation.advance(tokens)
        self._completion_tokens += tokens

    def _leave(self, generation: Generation) -> None:
        """Complete or cancelled: somebody else drives, if nobody does."""
        self._running.pop(generation, None)
        self._arrived.pop(generation, None)
        heir = next(iter(self._running or self._arrived), None)
        if heir is None:
            self._step_ends = self._step_starts = None
        elif not self._driven:
            heir.wake.set()


def _marks(texts: list[str]) -> dict[str, str]:
    """The marks that stand in a prompt with their values; of repeated ones the last."""
    return {name: value for text in texts if "[[" in text for name, value in _MARK.findall(text)}
