"""What a task asks for, as it is stored, and when two ask for the same."""

from __future__ import annotations

import hashlib

from msgspec import json

from autoglm.types import TaskSpec
from runtime.store.transaction import Payload

_encode = json.Encoder().encode
_decode = json.Decoder(Payload).decode


def body_of(spec: TaskSpec) -> str:
    limits = (spec.max_attempts, spec.attempt_timeout_s)
    return _encode(Payload(spec.messages, spec.prompt, spec.sampling, *limits)).decode()


def same_content(body: str, other: str) -> bool:
    """Whether two payloads ask for the same, whatever limits their attempts have."""
    if body == other:
        return True
    one, two = _decode(body), _decode(other)
    return (one.messages, one.prompt, one.sampling) == (two.messages, two.prompt, two.sampling)


def hash_of(tenant: str, engine: str, body: str) -> int:
    """64 bits, the same for payloads of the same content: a hint, to be proven by comparing."""
    asked = _decode(body)
    whole = _encode((tenant, engine, asked.messages, asked.prompt, asked.sampling))
    return int.from_bytes(hashlib.blake2b(whole, digest_size=8).digest(), "big", signed=True)
