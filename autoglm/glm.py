"""A model as one thing that answers: `AutoGLM.load(name).generate(prompt)`.

Nothing is loaded, connected or started before the first prompt. That one looks for a server at the
socket; where nobody listens it starts one as a child process, which ends with this one. Either way
the prompts go through the durable queue: what was answered stays in its store.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, Unpack, cast, get_args, overload

import msgspec

from autoglm.blocking import Loop
from autoglm.errors import (
    ConfigError,
    Conflict,
    ServerNotRunning,
    ServerUnavailable,
)
from autoglm.formats import Form
from autoglm.glmasking import check_texts_alone, is_one, said, several
from autoglm.models import MODELS, check_model
from autoglm.own_server import own_server
from autoglm.paths import places
from autoglm.prompts import Prompt, refuse_no_prompts
from autoglm.result import Result
from autoglm.spec import TaskOptions
from autoglm.streaming import Chunk
from autoglm.sync import Client
from autoglm.wire import Welcome

T = TypeVar("T")
EngineKind = Literal["vllm", "simulated"]


class GLMConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Which model, and how it is served. Raises ConfigError for what is not there.

        config = GLMConfig(model_name="tiny", max_seq_length=512, engine="simulated")

    `model_name` is `smollm2`, `tiny` or a model folder; `max_seq_length` is how many tokens of
    prompt and answer together fit (`engine.max_model_len`; None: what the model was made for).
    `settings` are any others of the server's, by their full names.
    """

    model_name: str = MODELS[0]
    max_seq_length: int | None = None
    engine: EngineKind = "vllm"
    socket: str | Path | None = None
    """Where the server listens; None: where `autoglm serve` does."""
    data_dir: str | Path | None = None
    tenant: str = "default"
    settings: Mapping[str, object] = {}

    def __post_init__(self) -> None:
        name, length = self.model_name, self.max_seq_length
        if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(f"model_name: a text, not {name!r}")
        check_model(name)
        if length is not None and (type(length) is not int or length < 1):
            raise ConfigError(f"max_seq_length: a number of tokens from 1, not {length!r}")
        if self.engine not in get_args(EngineKind):
            raise ConfigError(f"engine: {' or '.join(get_args(EngineKind))}, not {self.engine!r}")

    @property
    def server_settings(self) -> list[str]:
        """What `--set` would say."""
        named = {"engine.kind": self.engine, "engine.model": self.model_name}
        if self.max_seq_length is not None:
            named["engine.max_model_len"] = str(self.max_seq_length)
        return [f"{key}={value}" for key, value in (named | dict(self.settings)).items()]


class AutoGLM:
    """One model, asked from a script or a notebook.

        model = AutoGLM.from_config(GLMConfig(model_name="tiny", engine="simulated"))
        print(model.generate("Why is the sky blue?", max_tokens=16))
        model.close()

    The first call waits until a server of its own listens, and for the model as long as that
    loads. A server that is there is used if it runs the same model. Any number of threads may
    share one.
    """

    def __init__(self, config: GLMConfig) -> None:
        self.config = config
        self._starting = threading.Lock()
        self._running = _Running()
        self._finalize = weakref.finalize(self, self._running.close)

    def __repr__(self) -> str:
        return f"<AutoGLM {self.config.model_name}, {self._running!r}>"

    @classmethod
    def from_config(cls, config: GLMConfig) -> Self:
        """The model that `config` describes; nothing is loaded yet.

            model = AutoGLM.from_config(GLMConfig(model_name="tiny", max_seq_length=512))

        The same as `AutoGLM(config)`.
        """
        return cls(config)

    @classmethod
    def load(cls, model_name: str, **config: Any) -> Self:
        """The model of that name, with other fields of GLMConfig; nothing is loaded yet.

            model = AutoGLM.load("tiny", engine="simulated")

        Raises ConfigError, which lists the known models, for one that there is not.
        """
        unknown = sorted(config.keys() - set(GLMConfig.__struct_fields__))
        if unknown:
            known = ", ".join(GLMConfig.__struct_fields__)
            raise ConfigError(f"no setting {unknown[0]}; there are: {known}")
        return cls(GLMConfig(model_name=model_name, **config))

    @overload
    def generate(
        self,
        prompt: str,
        *,
        response_format: Form[T],
        timeout: float | None = None,
        **params: Unpack[TaskOptions],
    ) -> T: ...

    @overload
    def generate(
        self,
        prompt: str,
        *,
        response_format: None = None,
        timeout: float | None = None,
        **params: Unpack[TaskOptions],
    ) -> str: ...

    @overload
    def generate(
        self,
        prompt: Iterable[Any],
        *,
        response_format: Form[Any] | None = None,
        timeout: float | None = None,
        **params: Unpack[TaskOptions],
    ) -> Any: ...

    def generate(
        self,
        prompt: str | Iterable[Any],
        *,
        response_format: Form[Any] | None = None,
        timeout: float | None = None,
        **params: Unpack[TaskOptions],
    ) -> Any:
        """The answer's text; of a list of prompts, a list of texts in their order.

            text = model.generate("Why is the sky blue?", temperature=0.7, max_tokens=16)
            texts = model.generate(["one", "two"], max_tokens=8)

        A conversation (a list of messages) is one prompt. With `response_format` the value it
        makes of the text comes in its place. `timeout` is in seconds, for the whole call however
        many prompts it has, from when a server is there. Interrupted or too late, the task of one
        prompt is cancelled; those of a list go on, and their answers stay in the store. Raises
        InvalidRequest for what no task may be, and what `autoglm.Client.generate` raises.
        """
        check_texts_alone(params)
        client = self._client()
        given: Any = {"response_format": response_format, **params}
        try:
            if is_one(prompt):
                result: Result = client.generate(cast("Prompt", prompt), timeout=timeout, **given)
                return said(result)
            refuse_no_prompts("generate", prompt)
            prompts = list(prompt)  # here, for they may belong to the caller's thread
            call = functools.partial(several, client.awaited, prompts, timeout, given)
            return client.loop().wait(call)
        except (ServerNotRunning, ServerUnavailable):
            self.close()  # it is gone for good: the next call finds or starts another
            raise

    def stream(self, prompt: Prompt, **params: Unpack[TaskOptions]) -> Iterator[Chunk]:
        """The answer as it is written, piece by piece.

            for chunk in model.stream("Tell me a story.", max_tokens=16):
                print(chunk, end="", flush=True)

        Raises what `autoglm.Client.stream` raises.
        """
        yield from self._client().stream(prompt, **params)

    def close(self) -> None:
        """End the server, if it is our own; what it answered is in its store. May be repeated.

            model.close()

        A later call starts anew.
        """
        with self._starting:
            self._running.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _client(self) -> Client:
        """A client of a server that runs this model."""
        with self._starting:
            return self._running.client(self.config)


class _Running:
    """What was started: a client, and a server of our own where nobody listened."""

    def __init__(self) -> None:
        self._client: Client | None = None
        self._loop: Loop | None = None

    def __repr__(self) -> str:
        if self._client is None:
            return "not loaded"
        return "on a server of its own" if self._loop else "on the server that is there"

    def client(self, config: GLMConfig) -> Client:
        if self._client is not None:
            return self._client
        where = places(config.socket, config.data_dir)
        client = Client(where.socket, config.tenant)
        try:
            server = client.server
        except (ServerNotRunning, ServerUnavailable):  # there is none, or it is just dying
            self._loop = Loop()
            try:
                self._loop.enter(own_server(where, None, config.server_settings))
                server = client.server
            except BaseException:
                self.close()
                raise
        try:
            _check(config, server, str(where.socket))
        except BaseException:
            client.close()
            self.close()
            raise
        self._client = client
        return client

    def close(self) -> None:
        client, self._client = self._client, None
        loop, self._loop = self._loop, None
        if client is not None:
            client.close()
        if loop is not None:
            loop.close()


def _check(config: GLMConfig, server: Welcome, socket: str) -> None:
    """Raises Conflict when the server is not what was asked for."""
    wanted: list[tuple[str, object, object]] = [
        ("engine", config.engine, server.engine),
        ("model", config.model_name, server.model),
    ]
    if config.max_seq_length is not None:
        wanted.append(("max_seq_length", config.max_seq_length, server.max_model_len))
    for what, asked, has in wanted:
        if asked != has:
            raise Conflict(
                f"the server at {socket} runs with the {what} {has or 'of its model'}, not {asked};"
                " stop it, or give another socket"
            )
