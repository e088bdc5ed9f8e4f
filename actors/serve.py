"""The server as a process: folders, locks, signals, and the tree in between."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from signal import Signals

import anyio
import msgspec
from anyio.abc import Listener, SocketStream

from actors.policy.rank import ranker
from actors.tree import Tree
from actors.world import Identity, World
from autoglm import __version__
from autoglm.ids import Ids
from autoglm.paths import Places
from model.hosted import Launch
from runtime.clock import SystemClock, system_rng
from runtime.config import Config
from runtime.folder import claim_data_dir, claim_socket
from runtime.garbage import collect_seldom
from runtime.orphans import end_orphans
from runtime.process import ChildProcess, Host, die_with
from runtime.sdnotify import ServiceManager, Systemd
from runtime.store.protocol import StoreDamaged, StoreError
from runtime.store.sqlite import STORE_NAME, SqliteStore
from runtime.supervision import Escalation
from runtime.transport import TransportListener

log = logging.getLogger("autoglm")
EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130


class ServeOptions(msgspec.Struct, frozen=True):
    """What the command line adds to the configuration."""

    drain_timeout_s: float = 30.0
    parent: int | None = None
    """End with this process, however it ends."""


def serve(config: Config, places: Places, options: ServeOptions) -> int:
    """Run the server until it is told to stop; the exit code.

    Raises UsageError when the folder or the socket can't be had.
    """
    if options.parent is not None:
        die_with(options.parent)
    os.umask(0o077)
    data_lock = claim_data_dir(places.data_dir)
    socket_lock = claim_socket(places.socket)
    end_orphans(places.data_dir)
    collect_seldom()
    try:
        return anyio.run(_serve, config, places, options, backend_options={"use_uvloop": True})
    finally:
        places.socket.unlink(missing_ok=True)
        socket_lock.release()
        data_lock.release()


async def _serve(config: Config, places: Places, options: ServeOptions) -> int:
    # Open to the very end: a second signal during the last writes must not cut them.
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        store = SqliteStore(places.data_dir / STORE_NAME, ranker(config.scheduler.policy))
        identity = _identity(config, places, private=options.parent is not None)
        # One that ends with its parent answers to that one.
        manager = Systemd.of(os.environ) if options.parent is None else None
        tree = Tree(config, identity, _world(places, store, manager))
        try:
            await store.open()
        except StoreError as error:
            return _fail(str(error), EXIT_USAGE)
        try:
            return await _run_tree(tree, store, signals, options.drain_timeout_s)
        except StoreError as error:
            return _fail(str(error), EXIT_FAILED)
        finally:
            await store.close(untouched=tree.health.damage is not None)


async def _run_tree(
    tree: Tree, store: SqliteStore, signals: AsyncIterator[Signals], drain_timeout_s: float
) -> int:
    exit_code, blocked = EXIT_DONE, False
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(tree.run)
            if store.ended_uncleanly:
                group.start_soon(_check, tree, store)
            exit_code = await _until_told(tree, signals, drain_timeout_s)
            group.cancel_scope.cancel()
    except* Escalation as escalations:
        exit_code = _fail(f"giving up: {escalations.exceptions[0]}", EXIT_FAILED)
    except* StoreError as errors:
        exit_code, blocked = _fail(str(errors.exceptions[0]), EXIT_USAGE), True
    if blocked:
        return exit_code  # nothing has begun
    if tree.health.damage is not None:
        return _fail(str(tree.health.damage), EXIT_FAILED)
    await tree.put_back()
    return exit_code


async def _check(tree: Tree, store: SqliteStore) -> None:
    """Read the whole store while the server works; damage that is found stops the intake."""
    try:
        await store.check()
    except StoreDamaged as error:
        _say(f"nothing more is accepted: {error}")
        tree.health.damaged(error)
    except StoreError as error:
        log.warning("the store could not be checked: %s", error)


async def _until_told(tree: Tree, signals: AsyncIterator[Signals], drain_timeout_s: float) -> int:
    """Wait for SIGTERM or SIGINT, then drain; the second one ends it at once."""
    first = await anext(signals)
    _say("stopping: running work may finish; once more to stop at once")
    async with anyio.create_task_group() as group:

        async def drain() -> None:
            if not await tree.drain(drain_timeout_s):
                _say(f"what still ran after {drain_timeout_s:g} s goes back to the queue")
            group.cancel_scope.cancel()

        group.start_soon(drain)
        await anext(signals)
        group.cancel_scope.cancel()
    return EXIT_INTERRUPTED if first == signal.SIGINT else EXIT_DONE


def _identity(config: Config, places: Places, *, private: bool) -> Identity:
    engine, folder = config.engine, str(places.data_dir)
    known = (__version__, os.getpid(), engine.kind, engine.model, folder, private)
    return Identity(*known, engine.max_model_len)


def _world(places: Places, store: SqliteStore, manager: ServiceManager | None) -> World:
    return World(
        clock=SystemClock(),
        rng=system_rng(),
        ids=Ids(),
        store=store,
        listen=_listener(places.socket),
        launch=_launcher(places.data_dir),
        signal=os.kill,
        manager=manager,
    )


def _listener(path: Path) -> Callable[[], Awaitable[Listener[SocketStream]]]:
    async def listen() -> Listener[SocketStream]:
        listener = await anyio.create_unix_listener(path, mode=0o600)
        _say(f"listening at {path}")
        return TransportListener(listener)

    return listen


def _launcher(data_dir: Path) -> Callable[[str], Launch]:
    def of(name: str) -> Launch:
        async def launch() -> Host:
            return await ChildProcess.start("model.host", data_dir / f"{name}.log")

        return launch

    return of


def _say(text: str) -> None:
    print(f"autoglm: {text}", file=sys.stderr, flush=True)


def _fail(text: str, code: int) -> int:
    _say(text)
    return code
