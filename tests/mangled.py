"""Requests as clients send them, and what becomes of them on the way to a parser that is tried."""

from __future__ import annotations

import random
from typing import Any, cast

import msgspec

from autoglm import wire
from autoglm.deadletter import Content
from autoglm.drill import DrillPlan
from autoglm.types import ErrorInfo, Message, Sampling, TaskSpec, TaskState

ID = "0" * 26
EXTREMES: tuple[Any, ...] = (
    *(0, 1, -1, 127, 2**31, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, -(2**63)),
    *(0.0, -0.0, 1e308, float("inf"), float("nan"), True, False, None),
    *("", "\0", "x" * 201, "\x1b[2J", "\u202e", "' OR 1=1 --", b"", b"\xff" * 9),
    *([], {}, [None], [[[]]], {"type": "get"}, {"": None}),
)
_SPEC = TaskSpec(
    ID,
    messages=(Message("system", "be brief"), Message("user", "héllo")),
    sampling=Sampling(max_tokens=5, temperature=0.5, seed=7, stop=("x",)),
    tenant="t",
    priority=0,
    kind="k",
    key="key",
    after=("1" * 26,),
    deadline_at=1,
    expires_at=2,
    stream=True,
    weight=6.5,
    factors={"urgency_score": 8},
)
_PLAIN = TaskSpec("2" * 26, prompt="hello")
REQUESTS: tuple[wire.Request, ...] = (
    wire.Submit(2, (_PLAIN, _SPEC), follow=True),
    wire.Submit(3, (_PLAIN,)),
    wire.Get(4, "2" * 26),
    wire.Get(5, "2" * 26, wait=True),
    wire.Follow(6, "2" * 26),
    wire.Forget(7, 5),
    wire.ListTasks(8, tuple(TaskState), "t", "job", 5, 100),
    wire.Cancel(9, ("2" * 26,), "job"),
    wire.Cancel(10, ("2" * 26, "nothing")),
    wire.Edit(26, ("2" * 26,), 3, 5, version=1),
    wire.Edit(27, ("2" * 26, "nothing"), no_deadline=True),
    wire.GetStatus(11),
    wire.GetEvents(12, 3, "2" * 26, 10),
    wire.OpenJob(13, "/out", "input", "options", fresh=True),
    wire.SubmitLines(
        14,
        "job",
        (wire.JobLine(1, "a", task=_PLAIN), wire.JobLine(2, error=ErrorInfo("not_json", "no"))),
        last=True,
    ),
    wire.GetJobLines(15, "job", 1, ordered=False, limit=5),
    wire.Hello(16, tenant="t"),
    wire.Prune(17, 5, (3, 4)),
    wire.ListDead(18, "t", "engine_error", 5, 100),
    wire.ShowDead(19, "2" * 26),
    wire.SettleDead(20, discard=False, ids=("2" * 26,), every=True, tenant="t", reason="poison"),
    wire.SettleDead(21, discard=True, ids=("2" * 26, "nothing"), after=3),
    wire.BeginDrill(23, "3" * 26, DrillPlan("kill-actor", "reader", 1, 1)),
    wire.GetDrill(24, "3" * 26, end=True),
    wire.TakeCensus(25, 1, 2, 3, 4),
    wire.EditDead(22, "2" * 26, 1, Content(_SPEC.messages, None, _SPEC.sampling)),
    wire.ListQueues(23),
    wire.ListTenants(29),
    wire.Steer(26, "pause", ("2" * 26, "nothing"), after=3),
    wire.Steer(27, "requeue", every=True),
    wire.SteerQueue(28, "core", "resume"),
    wire.SetQueue(24, "normal", "default", "text"),
    wire.SetQueue(25, "core", reset=True),
    wire.ExportTasks(29, (TaskState.PENDING,), "default", "normal", "nothing", 5, 6, 7),
    wire.ExportTasks(30),
    wire.FindIds(31, "2222"),
)
HELLO = wire.encode_frame(wire.Hello(1))


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(wire.HEADER_BYTES, "big") + body


def altered(body: bytes, rng: random.Random, job: str = "job") -> bytes:
    """The message with one of its values, at any depth, exchanged, repeated or left out."""
    try:
        message = msgspec.msgpack.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, TypeError):
        return body
    if not isinstance(message, dict | list):
        return msgspec.msgpack.encode(rng.choice(EXTREMES))
    places: list[tuple[Any, Any]] = []
    _places(cast("dict[Any, Any] | list[Any]", message), places)
    if places:
        holder, key = rng.choice(places)
        draw = rng.random()
        if draw < 0.2:
            del holder[key]
        elif draw < 0.3:
            holder[key] = [holder[key]] * rng.choice((1, 2, 20))
        elif draw < 0.35:
            holder[key] = job
        else:
            holder[key] = rng.choice(EXTREMES)
    return msgspec.msgpack.encode(message)


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Bytes flipped, cut, put in or doubled, anywhere."""
    place, other = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
    return rng.choice(
        (
            data[:place],
            data[:place] + data[other:],
            data[:other] + data[place:],
            data[:place] + rng.randbytes(rng.randrange(5)) + data[place:],
            data[:place] + bytes([rng.randrange(256)]) + data[place + 1 :],
            data[:place] + rng.choice((b"\xff" * 4, b"\0" * 4, b"\x91" * 3000)) + data[place:],
        )
    )


def split(data: bytes, rng: random.Random) -> list[bytes]:
    """The same bytes in pieces, as a socket may bring them."""
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.choice((0, 1, 4))))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def _places(value: dict[Any, Any] | list[Any], found: list[tuple[Any, Any]]) -> None:
    """Every place in a message that holds a value, as (holder, key)."""
    keys: list[Any] = list(value) if isinstance(value, dict) else list(range(len(value)))
    for key in keys:
        found.append((value, key))
        if isinstance(value[key], dict | list):
            _places(value[key], found)
