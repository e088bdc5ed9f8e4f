"""What becomes of a task when its attempt is over. Pure: the random draw is handed in.

| how it ended                    | the task                                     | charged |
|---------------------------------|----------------------------------------------|---------|
| answered                        | succeeded                                    |         |
| engine died, or gave it up      | pending again, at the head (its rank is old) | no      |
| … and it is known how far it was| the same, and it goes on from there          | no      |
| … with a suspect alone in it    | dead: see `actors.policy.poison`             | yes     |
| permanent error                 | dead: the same request can't succeed         | yes     |
| any other error, time-out       | retrying, after full jitter; dead at the max | yes     |

The most failures and the longest attempt are the configuration's, unless the task has its own.
"""

from __future__ import annotations

from actors.policy.poison import convicted
from actors.policy.rank import prompt_chars
from autoglm.types import ErrorInfo, Output, TaskState, Usage
from model.engine import GIVEN_UP
from model.flight import Flight, Lost
from runtime.backoff import full_jitter
from runtime.config import RetryConfig
from runtime.partial import Partial
from runtime.store.protocol import ClaimedTask, Outcome


def outcome(flight: Flight[ClaimedTask], retry: RetryConfig, draw: float) -> Outcome:
    """How the end of `flight` is to be recorded."""
    task, ended = flight.task, flight.ended
    assert ended is not None, "recording a request that still runs"
    if isinstance(ended, Lost):
        return _lost(flight, ended)
    usage = Usage(ended.prompt_tokens, ended.completion_tokens, ended.cached_tokens)
    if ended.error is not None and ended.error.code == GIVEN_UP:
        return _put_back(task, ended.partial or flight.partial)
    if ended.error is not None:
        return _failed(task, ended.error, ended.permanent, usage, retry, draw)
    chars = prompt_chars(task.messages, task.prompt)
    output = Output(
        *(ended.text, ended.finish_reason, usage), logprobs=ended.logprobs, others=ended.others
    )
    if ended.before:  # an earlier attempt took the rest
        usage = Usage(0, usage.completion_tokens - ended.before)
    return Outcome(
        task.seq, task.attempt, TaskState.SUCCEEDED, output, usage=usage, prompt_chars=chars
    )


def timeout_s(task: ClaimedTask, retry: RetryConfig) -> float:
    """How long an attempt of `task` may take."""
    return retry.attempt_timeout_s if task.attempt_timeout_s is None else task.attempt_timeout_s


def _put_back(task: ClaimedTask, partial: Partial | None, *, died: bool = False) -> Outcome:
    """To go on where it was, if that is known. What it took until then is not asked for again."""
    usage = Usage()
    if partial is not None:
        before = len(task.continued.tokens) if task.continued else 0
        usage = Usage(0 if before else partial.prompt_tokens, len(partial.tokens) - before)
    return Outcome(
        task.seq, task.attempt, TaskState.PENDING, died=died, usage=usage, partial=partial
    )


def _lost(flight: Flight[ClaimedTask], ended: Lost) -> Outcome:
    task = flight.task
    if convicted(task.deaths, flight.trial):
        error = ErrorInfo(
            "poison",
            f"the engine dies of it: it was there at {task.deaths + 1} deaths, at the last one"
            f" alone; the engine's last words: {ended.reason}",
        )
        return Outcome(task.seq, task.attempt, TaskState.DEAD, error=error, charged=True, died=True)
    return _put_back(task, flight.partial, died=True)


def _failed(
    task: ClaimedTask,
    error: ErrorInfo,
    permanent: bool,
    usage: Usage,
    retry: RetryConfig,
    draw: float,
) -> Outcome:
    failures = task.failures + 1
    if permanent or failures >= (task.max_attempts or retry.max_attempts):
        state, pause = TaskState.DEAD, 0
    else:
        state = TaskState.RETRYING
        pause = round(full_jitter(failures, retry.base_ms, retry.cap_ms, draw))
    return Outcome(
        task.seq,
        task.attempt,
        state,
        error=error,
        charged=True,
        retry_in_ms=pause,
        usage=usage,
    )
