"""One line of a job's input: from bytes to a task, or to the reason why it is none.

Four forms are understood, told apart by the field that holds the prompt:

    {"custom_id", "method", "url", "body": {…}}      OpenAI batch: chat and text completions
    {"messages": […]}                                a conversation
    {"prompt": "…"}                                  one user message
    {"task_id", "model", "input", "priority", …}     `input` as one user message

A field that is null counts as not given. A line is refused rather than half understood: what is
unknown may be a misspelt option, and what can't be honoured would change the answer. `model`
chooses nothing, as one server runs one model. Nothing here does I/O, and no line raises.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar, cast

import msgspec

from autoglm.errors import UsageError
from autoglm.ids import Ids
from autoglm.jsonline import BadLine, parse_object
from autoglm.prompts import messages_of
from autoglm.spec import check, moment_ms, span_s
from autoglm.text import one_line
from autoglm.types import ErrorInfo, Sampling, TaskSpec
from autoglm.wire import JobLine

CHAT_URL = "/v1/chat/completions"
COMPLETION_URL = "/v1/completions"

T = TypeVar("T")
Fields = Mapping[str, Any]


class _Extras(msgspec.Struct, frozen=True):
    """What every form may say about its task."""

    custom_id: str | None = None
    priority: int | None = None
    tenant: str = "default"
    queue: str | None = None
    kind: str | None = None
    weight: float | None = None
    factors: dict[str, float] = {}
    key: str | None = None
    deadline: float | str | None = None
    expires: float | str | None = None
    max_attempts: int | None = None
    attempt_timeout: float | str | None = None


_PROMPTS = ("body", "messages", "prompt", "input")
_ASKED_OTHERWISE = {"n", "logprobs", "json_schema"}
_SETTINGS = {*Sampling.__struct_fields__, "max_completion_tokens"} - _ASKED_OTHERWISE
_OPENAI_FIELDS = {*_Extras.__struct_fields__, "method", "url", "body"}
_PLAIN_FIELDS = {*_Extras.__struct_fields__, *_SETTINGS, "model", "system", "task_id"}
_LATER = {"callback_url": "callbacks are not available in this version yet"}
_WITHOUT_EFFECT = {
    *("model", "user", "metadata", "store", "service_tier", "safety_identifier"),
    *("prompt_cache_key", "parallel_tool_calls", "stream_options"),
}
"""Fields of an OpenAI body that can't change the answer."""
_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "stream": (False,),
    "echo": (False,),
    "logprobs": (False, 0),
    "top_logprobs": (0,),
    "suffix": ("",),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": (),
    "verbosity": (),
    "web_search_options": (),
}
"""Fields of an OpenAI body that do change it, with the values that ask for nothing."""


class LineParser:
    """Parses the lines of one job. `ids` mints the tasks' ids and tells the time."""

    def __init__(self, job: str, ids: Ids) -> None:
        self._job = job
        self._ids = ids

    def parse(self, number: int, line: bytes) -> JobLine | None:
        """Line `number` (from 1), with or without its line end; None when it is blank.

        What is wrong with a line is told in the `error` of what is returned.
        """
        if not line.strip():
            return None
        given: Fields = {}
        try:
            given = parse_object(line, first=number == 1)
            fields = {name: value for name, value in given.items() if value is not None}
            form = _form_of(fields)
            if form == "body":
                return self._openai(number, given, fields)
            return self._plain(number, form, given, fields)
        except BadLine as error:
            info = ErrorInfo(error.code, str(error))
        except UsageError as error:
            info = ErrorInfo("invalid_value", str(error))
        return JobLine(number, _custom_id(given), error=info)

    def _openai(self, number: int, given: Fields, fields: Fields) -> JobLine:
        _refuse_unknown(given, _OPENAI_FIELDS)
        url, body = fields.get("url"), _object("body", fields["body"])
        if url not in (CHAT_URL, COMPLETION_URL):
            raise BadLine("invalid_value", f"url: expected {CHAT_URL} or {COMPLETION_URL}")
        if fields.get("method", "POST") != "POST":
            raise BadLine("invalid_value", "method: expected POST")
        prompt = "messages" if url == CHAT_URL else "prompt"
        _refuse_unknown(body, {prompt, *_SETTINGS, *_WITHOUT_EFFECT, *_NEUTRAL}, "body.")
        _refuse_unsupported(body)
        body = {name: value for name, value in body.items() if value is not None}
        if prompt not in body:
            raise BadLine("missing_field", f"body.{prompt} is missing")
        extras = _convert(fields, _Extras)
        if url == CHAT_URL:
            content = {"messages": messages_of(_listed("body.messages", body["messages"]))}
        else:
            content = {"prompt": _raw_prompt(body["prompt"])}
        task = self._task(number, extras, extras.key, _sampling(body, "body."), content)
        return JobLine(number, extras.custom_id, url, task)

    def _plain(self, number: int, form: str, given: Fields, fields: Fields) -> JobLine:
        _refuse_unknown(given, {*_PROMPTS, *_PLAIN_FIELDS})
        extras, task_id = _convert(fields, _Extras), _task_id(fields)
        prompt, system = fields[form], fields.get("system")
        if not isinstance(prompt, str) or form == "messages":
            prompt = _listed(form, prompt if form != "prompt" else None)
        if not isinstance(system, str | None):
            raise BadLine("invalid_value", "system: expected a text")
        content = {"messages": messages_of(prompt, system)}
        key = task_id if extras.key is None else extras.key
        task = self._task(number, extras, key, _sampling(fields), content)
        custom_id = task_id if extras.custom_id is None else extras.custom_id
        return JobLine(number, custom_id, CHAT_URL, task)

    def _task(
        self,
        number: int,
        extras: _Extras,
        key: str | None,
        sampling: Sampling,
        content: Mapping[str, Any],
    ) -> TaskSpec:
        now_ms = self._ids.now_ms()
        spec = TaskSpec(
            id=self._ids.mint(),
            sampling=sampling,
            tenant=extras.tenant,
            queue=extras.queue,
            priority=extras.priority,
            kind=extras.kind,
            key=f"{self._job}:{number}" if key is None else key,
            deadline_at=moment_ms("deadline", extras.deadline, now_ms),
            expires_at=moment_ms("expires", extras.expires, now_ms),
            max_attempts=extras.max_attempts,
            attempt_timeout_s=span_s("attempt_timeout", extras.attempt_timeout),
            weight=extras.weight,
            factors=extras.factors,
            **content,
        )
        check(spec)
        return spec


def _form_of(fields: Fields) -> str:
    forms = [name for name in _PROMPTS if name in fields]
    if len(forms) == 1:
        return forms[0]
    if forms:
        raise BadLine("invalid_value", f"{' and '.join(forms)} can't stand together")
    raise BadLine("missing_field", f"one of {', '.join(_PROMPTS)} is needed")


def _refuse_unknown(given: Fields, known: Iterable[str], path: str = "") -> None:
    names = set(known)
    for name, value in given.items():
        if name in _LATER and name not in names:
            if value is not None:
                raise BadLine("unsupported_field", f"{name}: {_LATER[name]}")
        elif name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"; did you mean {path}{near[0]}?" if near else ""
            raise BadLine("unknown_field", f"unknown field {path}{one_line(name, 40)}{hint}")


def _refuse_unsupported(body: Fields) -> None:
    for name, neutral in _NEUTRAL.items():
        value = body.get(name)
        # Compared with the type, as 0 == False in Python and `"n": true` is not one answer.
        if value is None or any(type(value) is type(v) and value == v for v in neutral):
            continue
        raise BadLine("unsupported_field", f"body.{name} can't be honoured; leave it out")


def _sampling(fields: Fields, path: str = "") -> Sampling:
    settings = {name: fields[name] for name in _SETTINGS & fields.keys()}
    if "max_completion_tokens" in settings:
        most = settings.pop("max_completion_tokens")
        if settings.setdefault("max_tokens", most) != most:
            raise BadLine("invalid_value", "max_tokens and max_completion_tokens differ")
    if isinstance(settings.get("stop"), str):
        settings["stop"] = (settings["stop"],)
    return _convert(settings, Sampling, path) if settings else Sampling()


def _object(name: str, value: object) -> Fields:
    if not isinstance(value, dict):
        raise BadLine("invalid_value", f"{name}: expected an object")
    return cast("Fields", value)


def _listed(name: str, value: object) -> Sequence[Any]:
    if not isinstance(value, list):
        raise BadLine("invalid_value", f"{name}: not what a prompt looks like")
    return cast("Sequence[Any]", value)


def _raw_prompt(prompt: object) -> str:
    if not isinstance(prompt, str) or not prompt:
        raise BadLine("invalid_value", "body.prompt: expected one text that is not empty")
    return prompt


def _task_id(fields: Fields) -> str | None:
    task_id = fields.get("task_id")
    if isinstance(task_id, int) and not isinstance(task_id, bool):
        return str(task_id)
    if not isinstance(task_id, str | None):
        raise BadLine("invalid_value", "task_id: expected a text")
    return task_id


def _custom_id(given: Fields) -> str | None:
    """What names a line that is wrong, if it has a name."""
    names = (given.get("custom_id"), given.get("task_id"))
    return next((name for name in names if isinstance(name, str)), None)


def _convert(values: Fields, kind: type[T], path: str = "") -> T:
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        field = where.strip("`.").split("[")[0]
        text = f"{path}{field}: {what[:1].lower()}{what[1:]}"
        raise BadLine("invalid_value", text.replace("`", "")) from None
