"""What became of a task: its result, or the exception that says why there is none."""

from __future__ import annotations

from autoglm.errors import ProtocolError, TaskCancelled, TaskDead, TaskError, TaskExpired, from_code
from autoglm.result import Result
from autoglm.types import Answer, Task, TaskState
from autoglm.wire import Accepted

_KINDS = {
    TaskState.DEAD: TaskDead,
    TaskState.CANCELLED: TaskCancelled,
    TaskState.EXPIRED: TaskExpired,
}


def accepted_task(accepted: Accepted) -> Task:
    """The task that was taken. Raises the error it was refused with."""
    if accepted.task is not None:
        return accepted.task
    if accepted.error is None:
        raise ProtocolError("the server said neither yes nor no to a task")
    raise from_code(accepted.error.code, accepted.error.message, accepted.retry_after)


def result_of(answer: Answer) -> Result:
    """The recorded answer. Raises TaskDead, TaskCancelled or TaskExpired when there is none."""
    task, output = answer.task, answer.result
    if output is None:
        raise task_error(task)
    return Result(
        *(output.text, output.finish_reason, output.usage, task, output.degraded),
        *(output.logprobs, output.others),
    )


def task_error(task: Task) -> TaskError:
    """Why `task` has no answer."""
    why = f": {task.error.message} ({task.error.code})" if task.error else ""
    kind = _KINDS.get(task.state, TaskError)
    return kind(f"task {task.id} is {task.state.value}{why}", task=task)
