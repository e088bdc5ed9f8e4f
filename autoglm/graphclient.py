"""Tasks that are handed in together: all of them are stored or none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Unpack

from autoglm import wire
from autoglm.errors import InvalidRequest, ProtocolError
from autoglm.formats import Form, Format, format_or_none
from autoglm.graph import NOT_STORED, Circle, in_order
from autoglm.ids import Ids
from autoglm.outcomes import accepted_task
from autoglm.prompts import Prompt, refuse_no_prompts
from autoglm.session import Session
from autoglm.spec import TaskOptions, size_bytes, task_spec
from autoglm.text import one_line
from autoglm.types import Task, TaskSpec
from autoglm.wire import FRAME_BYTES_MAX, TASKS_PER_SUBMIT_MAX


class GraphCalls:
    """A part of `Client`."""

    _session: Session
    _ids: Ids

    def spec(
        self,
        prompt: Prompt,
        *,
        response_format: Form[Any] | None = None,
        **options: Unpack[TaskOptions],
    ) -> TaskSpec:
        """A task that is not handed in yet: its `id` is known, so that others can come `after` it.

            first = client.spec("Summarise chapter one.")
            second = client.spec("Translate the summary.", after=first)
            await client.submit_many([first, second])

        Takes what `submit` takes. Raises InvalidRequest.
        """
        return self._spec(prompt, format_or_none(response_format), options)

    def _spec(self, prompt: Prompt, wanted: Format[Any] | None, options: TaskOptions) -> TaskSpec:
        bound = self._session.tenant
        options = options.copy()
        tenant = options.setdefault("tenant", bound or "default")
        if bound is not None and tenant != bound:
            raise InvalidRequest(
                f"tenant {one_line(str(tenant), 40)}: this client speaks for {one_line(bound, 40)};"
                " one with tenant=None speaks for all"
            )
        schema = None if wanted is None else wanted.schema
        ids = self._ids
        return task_spec(prompt, id=ids.mint(), now_ms=ids.now_ms(), json_schema=schema, **options)

    async def submit_many(self, tasks: Iterable[TaskSpec | Prompt]) -> Sequence[Task]:
        """Hand in tasks in one transaction, all or none; they may come `after` each other, in any
        order. The tasks as they were stored, in the order given.

            parts = [client.spec(part) for part in ("Chapter one.", "Chapter two.")]
            whole = client.spec("Put it together.", after=parts)
            await client.submit_many([*parts, whole])

        Repeating the call with the same specs changes nothing. Raises what `submit` raises, for the
        first task that is wrong, by its id: nothing was stored then.
        """
        refuse_no_prompts("submit_many", tasks)
        specs = [each if isinstance(each, TaskSpec) else self.spec(each) for each in tasks]
        if not specs:
            return []
        _check(specs)
        message = wire.Submit(0, tuple(specs), atomic=True)
        reply = await self._session.call(message, wire.Submitted)
        if len(reply.tasks) != len(specs):
            raise ProtocolError("the server did not say of each task what became of it")
        for spec, accepted in zip(specs, reply.tasks, strict=True):
            if accepted.error is not None and accepted.error.code != NOT_STORED:
                accepted_task(_named(spec, accepted))
        return [accepted_task(accepted) for accepted in reply.tasks]


def _check(specs: Sequence[TaskSpec]) -> None:
    """Raises InvalidRequest for what no server takes as one."""
    if len(specs) > TASKS_PER_SUBMIT_MAX:
        raise InvalidRequest(
            f"one submit takes up to {TASKS_PER_SUBMIT_MAX} tasks, not {len(specs)}"
        )
    size = sum(map(size_bytes, specs))
    if size > FRAME_BYTES_MAX * 0.99:  # the rest is for what stands around them
        raise InvalidRequest(f"one submit takes up to {FRAME_BYTES_MAX} bytes, not {size}")
    try:
        in_order({spec.id: spec.after for spec in specs})
    except Circle as circle:
        raise InvalidRequest(str(circle)) from None


def _named(spec: TaskSpec, accepted: wire.Accepted) -> wire.Accepted:
    """A refusal that says which task it is of."""
    error = accepted.error
    assert error is not None
    named = type(error)(error.code, f"task {spec.id}: {error.message}")
    return wire.Accepted(error=named, retry_after=accepted.retry_after)
