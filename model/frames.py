"""What the server and an engine host say to each other: one msgpack map a frame.

One frame carries as many requests or results as there are at the moment.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from model.engine import Completion, EngineInfo, EngineLoad, EngineRequest, Kept, Progress
from runtime.config import EngineConfig


class Load(msgspec.Struct, frozen=True, tag="load"):
    """First frame: build this engine."""

    config: EngineConfig


class Generate(msgspec.Struct, frozen=True, tag="generate"):
    requests: tuple[EngineRequest, ...]


class Abort(msgspec.Struct, frozen=True, tag="abort"):
    """Stop these; nothing more is said of them."""

    ids: tuple[str, ...]


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """Stop these for now: they end as given up, with what is needed to go on."""

    ids: tuple[str, ...]


class Loaded(msgspec.Struct, frozen=True, tag="loaded"):
    info: EngineInfo


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The engine could not be loaded, or died. `permanent`: trying again can't help."""

    reason: str
    permanent: bool = False


class Finished(msgspec.Struct, frozen=True, tag="finished"):
    completions: tuple[Completion, ...]


class Texts(msgspec.Struct, frozen=True, tag="texts"):
    """New pieces of streaming answers."""

    pieces: tuple[Progress, ...]


class Keep(msgspec.Struct, frozen=True, tag="keep"):
    """How far running requests have come."""

    kept: tuple[Kept, ...]


class Reading(msgspec.Struct, frozen=True, tag="reading"):
    """Sent every second or so: the sign that the host is alive."""

    load: EngineLoad


ToHost = Load | Generate | Abort | Stop
FromHost = Loaded | Failed | Finished | Texts | Keep | Reading

PART_BYTES_MAX = 64 * 1024 * 1024
"""What comes together goes in several frames rather than in a larger one."""

encode = msgspec.msgpack.Encoder().encode
decode_to_host: msgspec.msgpack.Decoder[ToHost] = msgspec.msgpack.Decoder(ToHost)
decode_from_host: msgspec.msgpack.Decoder[FromHost] = msgspec.msgpack.Decoder(FromHost)


def encode_in_parts(
    message: ToHost | FromHost, part_bytes_max: int = PART_BYTES_MAX
) -> Iterator[bytes]:
    """The bodies of the frames that say `message`. A single item is never divided."""
    body = encode(message)
    match message:
        case Generate(items) | Finished(items) | Texts(items) | Keep(items) if (
            len(items) > 1 and len(body) > part_bytes_max
        ):
            half = len(items) // 2
            for part in (items[:half], items[half:]):
                yield from encode_in_parts(type(message)(part), part_bytes_max)  # pyright: ignore
        case _:
            yield body
