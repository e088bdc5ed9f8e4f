"""How an answer is to be made: the options by name, and which values there are.

`check_sampling` is made twice, as `autoglm.spec.check` is: by the client and by the server.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypedDict, cast

import msgspec

from autoglm.errors import InvalidRequest
from autoglm.types import Sampling

STOPS_MAX = 16
SCHEMA_BYTES_MAX = 256 * 1024
N_MAX = 64
"""Answers to one prompt; each of them takes a slot."""
LOGPROBS_MAX = 20
"""Likely tokens for each of an answer's: as many as OpenAI gives."""

_RANGES: dict[str, tuple[float, float]] = {
    "max_tokens": (1, 2**31),
    "min_tokens": (0, 2**31),
    "temperature": (0, 100),
    "top_p": (0, 1),
    "top_k": (-1, 2**31),
    "min_p": (0, 1),
    "seed": (-(2**63), 2**63 - 1),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
    "repetition_penalty": (0, 100),
    "n": (1, N_MAX),
    "logprobs": (0, LOGPROBS_MAX),
}
_EXCLUDES_ZERO = {"top_p", "repetition_penalty"}


class SamplingOptions(TypedDict, total=False):
    """How the answer to a prompt is made; what is None or left out is the model's own choice.

    `max_tokens` None means until the end of text or the full context, `n` asks for that many
    answers to the same prompt (`result.choices`), `logprobs` for the log probabilities of the
    answer's tokens with up to 20 likely ones for each (`result.logprobs`; 0: its own alone). The
    same `seed` gives the same answer, as far as the engine can. `sampling` carries all of it as
    one value; what is named wins over it.
    """

    max_tokens: int | None
    min_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    seed: int | None
    stop: str | Iterable[str]
    presence_penalty: float | None
    frequency_penalty: float | None
    repetition_penalty: float | None
    ignore_eos: bool
    n: int | None
    logprobs: int | None
    sampling: Sampling | None


def sampling_of(options: Mapping[str, Any], json_schema: str | None) -> Sampling:
    """What `SamplingOptions` say; the values are not checked here."""
    given = {
        name: options[name]
        for name in Sampling.__struct_fields__
        if options.get(name) is not None and name != "stop"
    }
    if stop := options.get("stop"):
        if not isinstance(stop, Iterable):
            raise InvalidRequest(f"stop: a text or several, not {type(stop).__name__}")
        given["stop"] = (stop,) if isinstance(stop, str) else tuple(cast("Iterable[str]", stop))
    if json_schema is not None:
        given["json_schema"] = json_schema
    base = options.get("sampling") or Sampling()
    if not isinstance(base, Sampling):
        raise InvalidRequest(f"sampling: an autoglm.Sampling, not {type(base).__name__}")
    return msgspec.structs.replace(base, **given)


def check_sampling(sampling: Sampling) -> None:
    """Raises InvalidRequest for what no server takes, naming the field."""
    for field, (least, most) in _RANGES.items():
        value = getattr(sampling, field)
        within = value is None or least <= value <= most  # NaN is within nothing
        if not within or (value == 0 and field in _EXCLUDES_ZERO):
            above = "above" if field in _EXCLUDES_ZERO else "from"
            raise InvalidRequest(f"{field} {value}: {above} {least} to {most}")
    if len(sampling.stop) > STOPS_MAX:
        raise InvalidRequest(f"stop: at most {STOPS_MAX} texts, not {len(sampling.stop)}")
    if "" in sampling.stop:
        raise InvalidRequest("stop: an empty text would stop every answer at once")
    if sampling.json_schema is not None:
        _check_schema(sampling.json_schema)


def _check_schema(text: str) -> None:
    if len(text) > SCHEMA_BYTES_MAX:
        raise InvalidRequest(f"json_schema: {len(text)} characters, at most {SCHEMA_BYTES_MAX}")
    try:
        msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError) as error:
        raise InvalidRequest(f"json_schema: not an object in JSON: {error}") from None
