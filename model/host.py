"""The engine host: a child process that holds one engine, so that its death takes nothing along.

Run as `python -P -m model.host --fd N --parent PID`. Reads `ToHost` frames, answers with
`FromHost` frames, ends when the channel does. Loading an engine may block this process for a
minute; the server does not notice.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

import anyio
import anyio.lowlevel
import msgspec
from anyio.abc import TaskGroup

from autoglm.types import ErrorInfo
from model.engine import (
    GIVEN_UP,
    Completion,
    Engine,
    EngineDead,
    EngineRequest,
    EngineUnavailable,
    Kept,
    Progress,
    RequestFailed,
)
from model.frames import (
    Abort,
    Failed,
    Finished,
    FromHost,
    Generate,
    Keep,
    Load,
    Loaded,
    Reading,
    Stop,
    Texts,
    ToHost,
    decode_to_host,
    encode_in_parts,
)
from runtime.bell import Bell
from runtime.channel import Channel, ChannelClosed, SocketChannel
from runtime.clock import Clock, SystemClock
from runtime.config import EngineConfig
from runtime.garbage import collect_seldom
from runtime.process import die_with
from runtime.supervision import describe

READING_EVERY_S = 0.5
KEEP_EVERY_S = 0.02
"""How often to look who has made so many tokens that they are to be kept."""
ANSWER_BYTES_MAX = 16 * 1024 * 1024
"""Half of what a client's frame holds, because a page of answers may hold others before it."""

EngineOf = Callable[[EngineConfig, Clock], Engine]


def engine_of(config: EngineConfig, clock: Clock) -> Engine:
    """The engine that `config` asks for; only that one is imported."""
    if config.kind == "simulated":
        from model.simulated import SimulatedEngine  # noqa: PLC0415

        return SimulatedEngine(config, clock)
    from model.vllm import VllmEngine  # noqa: PLC0415

    return VllmEngine(config)


@dataclass(slots=True)
class _Call:
    """A request in the engine."""

    request: EngineRequest
    scope: anyio.CancelScope
    kept: int = 0
    """How many of its tokens were handed over."""
    stopped: Completion | None = None
    """What is to be said of it when it has been stopped."""

    def __post_init__(self) -> None:
        continued = self.request.continued
        self.kept = len(continued.tokens) if continued else 0


class EngineHost:
    """Serves one channel until it closes."""

    def __init__(self, channel: Channel, clock: Clock, build: EngineOf = engine_of) -> None:
        self._channel = channel
        self._clock = clock
        self._build = build
        self._engine: Engine | None = None
        self._running: dict[str, _Call] = {}
        """Requests in the engine, by task id; ended by `Abort` and `Stop`."""
        self._news = Bell()
        self._finished: list[Completion] = []
        self._pieces: list[Progress] = []
        self._keep_tokens: int | None = None
        """How much longer an answer is each time it is kept; None: none is."""
        self._dead: str | None = None
        self._sending = anyio.Lock()
        """A stream takes one sender at a time, and a large frame takes a while."""

    async def serve(self) -> None:
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._send_news)
                try:
                    while True:
                        for body in await self._channel.receive():
                            await self._take(decode_to_host.decode(body), group)
                except ChannelClosed:
                    group.cancel_scope.cancel()
        finally:
            if self._engine is not None:
                self._engine.close()

    async def _take(self, message: ToHost, group: TaskGroup) -> None:
        match message:
            case Load(config):
                group.start_soon(self._load, config, group)
            case Generate(requests):
                for request in requests:
                    # Known from here on: what ends it may come in the same read.
                    call = self._running[request.id] = _Call(request, anyio.CancelScope())
                    group.start_soon(self._answer, call)
            case Abort(ids):
                for id in ids:
                    if id in self._running:
                        self._running[id].scope.cancel()
            case Stop(ids):
                for id in ids:
                    self._stop(id)
            case _:
                assert_never(message)

    async def _load(self, config: EngineConfig, group: TaskGroup) -> None:
        try:
            self._engine = self._build(config, self._clock)
            info = await self._engine.load()
        except EngineUnavailable as error:
            await self._send(Failed(str(error), permanent=True))
            return
        except Exception as error:
            await self._send(Failed(describe(error)))
            raise
        await self._send(Loaded(info))
        self._keep_tokens = config.checkpoint_tokens
        if self._keep_tokens is not None:
            group.start_soon(self._keep)
        while True:
            await self._send(Reading(self._engine.reading()))
            await self._clock.sleep(READING_EVERY_S)

    async def _keep(self) -> None:
        """Have it told now and then how far the requests have come."""
        while True:
            await self._clock.sleep(KEEP_EVERY_S)
            if self._running:
                self._news.ring()

    def _further(self) -> tuple[Kept, ...]:
        """What has been made of those that are so many tokens longer than when it was told."""
        engine, every = self._engine, self._keep_tokens
        kept: list[Kept] = []
        if engine is None or every is None:
            return ()
        for id, call in self._running.items():
            made = engine.made(id)
            if made - call.kept >= every and (partial := engine.partial(id)) is not None:
                call.kept = made
                kept.append(Kept(id, call.request.attempt, partial))
        return tuple(kept)

    def _stop(self, id: str) -> None:
        call = self._running.get(id)
        if call is not None and self._engine is not None:
            call.stopped = Completion(
                id,
                call.request.attempt,
                error=ErrorInfo(GIVEN_UP, "stopped for others"),
                partial=self._engine.partial(id),
            )
            call.scope.cancel()

    async def _answer(self, call: _Call) -> None:
        assert self._engine is not None, "a request before the engine was loaded"
        request, scope = call.request, call.scope
        with scope:
            try:
                await anyio.lowlevel.checkpoint_if_cancelled()
                on_text = self._streamer(request) if request.stream else None
                completion = _bounded(await self._engine.generate(request, on_text))
            except RequestFailed as error:
                completion = _failed(request, error.code, error, error.permanent)
            except EngineDead as error:
                self._dead = str(error)
                completion = None
            except Exception as error:
                completion = _failed(request, "engine_error", error, permanent=False)
            finally:
                if self._running.get(request.id) is call:
                    del self._running[request.id]
            if completion is not None:
                self._finished.append(completion)
            self._news.ring()
        if scope.cancelled_caught and call.stopped is not None:
            self._finished.append(call.stopped)
            self._news.ring()

    def _streamer(self, request: EngineRequest) -> Callable[[str], None]:
        offset = 0

        def on_text(text: str) -> None:
            nonlocal offset
            self._pieces.append(Progress(request.id, request.attempt, offset, text))
            offset += len(text)
            self._news.ring()

        return on_text

    async def _send_news(self) -> None:
        """One frame for all that has come together; chunks before the ends they belong to, and
        what is to be kept before whoever reads along sees it.
        """
        while True:
            await self._news.wait_rung()
            pieces, self._pieces = tuple(self._pieces), []
            finished, self._finished = tuple(self._finished), []
            if kept := self._further():
                await self._send(Keep(kept))
            if pieces:
                await self._send(Texts(pieces))
            if finished:
                await self._send(Finished(finished))
            if self._dead is not None:
                await self._send(Failed(self._dead))

    async def _send(self, message: FromHost) -> None:
        # The reader notices a closed channel too, and ends everything.
        with contextlib.suppress(ChannelClosed):
            for body in encode_in_parts(message):
                async with self._sending:
                    await self._channel.send(body)


def _bounded(completion: Completion) -> Completion:
    """Raises RequestFailed for an answer that no reply could carry."""
    # UTF-8 takes four bytes a character at most: only long texts need to be measured.
    plain = completion.logprobs is None and not completion.others
    if plain and len(completion.text) <= ANSWER_BYTES_MAX // 4:
        return completion
    size = len(completion.text.encode()) if plain else len(msgspec.json.encode(completion))
    if size > ANSWER_BYTES_MAX:
        raise RequestFailed(
            "answer_too_long",
            f"the answer has {size} bytes, over the limit of {ANSWER_BYTES_MAX}; lower max_tokens"
            f"{'' if plain else ', n or logprobs'}",
            permanent=True,
        )
    return completion


def _failed(request: EngineRequest, code: str, error: Exception, permanent: bool) -> Completion:
    info = ErrorInfo(code, str(error) or type(error).__name__)
    return Completion(request.id, request.attempt, error=info, permanent=permanent)


async def _main(fd: int) -> None:
    await EngineHost(await SocketChannel.of(socket.socket(fileno=fd)), SystemClock()).serve()


def main() -> None:
    parser = argparse.ArgumentParser(prog="model.host")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    arguments = parser.parse_args()
    die_with(arguments.parent)
    collect_seldom()
    anyio.run(_main, arguments.fd, backend_options={"use_uvloop": True})
    # vLLM leaves threads behind that would keep the interpreter from ending.
    os._exit(0)


if __name__ == "__mp_main__":
    # vLLM's EngineCore is a process of its own that imports this file anew. It has no parent-death
    # signal and would live on, with its memory, when the host is killed.
    die_with(os.getppid())
elif __name__ == "__main__":
    main()
