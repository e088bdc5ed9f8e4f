"""Every error autoglm raises on purpose.

    AutoGLMError
    ├── UsageError               a call, an option or a file is wrong: mend it          exit 2
    │   ├── ConfigError          a configuration key or value
    │   └── InvalidRequest       a task the server will not take as it stands
    ├── ServerError              no server, or it refused: nothing was changed          exit 3
    │   ├── ServerNotRunning     nobody listens at the socket
    │   ├── ServerBusy           full for now: `retry_after` says when to try again
    │   ├── NotAllowed           the server's configuration, or who one speaks for, forbids it
    │   ├── ServerUnavailable    shutting down, or a part of it restarts; `retry_after`
    │   │   └── EngineUnavailable    no engine can serve, and the queue says not to wait for one
    │   ├── NotFound             no such task or job (or it is another tenant's)
    │   ├── Conflict             same key with other content; OUT belongs to another job; what is
    │   │                        to be edited runs, has ended or is at another version
    │   └── ProtocolError        the other side does not speak this protocol version
    └── TaskError                the task itself ended without a usable answer         exit 1
        ├── TaskDead             failed for good: `task.error` says why
        ├── TaskCancelled        somebody cancelled it
        ├── TaskExpired          its `expires` passed first
        └── InvalidAnswer        it was answered, but not in the form that was asked for: `text`

`code` is the stable name that travels on the wire and stands in JSON output.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from autoglm.types import Task

if TYPE_CHECKING:
    from autoglm.result import Result


class AutoGLMError(Exception):
    """Base of all errors; `str(error)` is one line that says what to do."""

    code: ClassVar[str] = "internal"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds after which repeating the same call is worth it; None: it is not."""


class UsageError(AutoGLMError):
    code = "usage"
    exit_code = 2


class ConfigError(UsageError):
    """`at` is the key it is about, such as `batch.window_ms`; `unknown`: there is no such key;
    `line` and `column`, from 1, where it stands in the file, if it does.
    """

    code = "config"

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        at: str | None = None,
        unknown: bool = False,
        line: int | None = None,
        column: int | None = None,
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.at = at
        self.unknown = unknown
        self.line = line
        self.column = column


class InvalidRequest(UsageError):
    code = "invalid_request"


class ServerError(AutoGLMError):
    code = "server_error"
    exit_code = 3


class ServerNotRunning(ServerError):
    code = "not_running"


class ServerBusy(ServerError):
    code = "busy"


class ServerUnavailable(ServerError):
    code = "unavailable"


class NotAllowed(ServerError):
    code = "not_allowed"


class EngineUnavailable(ServerUnavailable):
    """`retry_after`: when an engine may be started next; None: one is being tried now."""

    code = "engine_unavailable"


class NotFound(ServerError):
    code = "not_found"


class Conflict(ServerError):
    code = "conflict"


class ProtocolError(ServerError):
    code = "protocol"


class TaskError(AutoGLMError):
    code = "task_error"

    def __init__(
        self, message: str, *, retry_after: float | None = None, task: Task | None = None
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.task = task
        """The task as it ended."""


class TaskDead(TaskError):
    code = "dead"


class TaskCancelled(TaskError):
    code = "cancelled"


class TaskExpired(TaskError):
    code = "expired"


class InvalidAnswer(TaskError):
    """The task succeeded, and its text is not what `response_format` asked for."""

    code = "invalid_answer"

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        task: Task | None = None,
        result: Result | None = None,
    ) -> None:
        super().__init__(message, retry_after=retry_after, task=task)
        self.result = result
        """The answer as it was recorded."""

    @property
    def text(self) -> str:
        return self.result.text if self.result else ""


def _leaves(kind: type[AutoGLMError]) -> dict[str, type[AutoGLMError]]:
    found = {kind.code: kind}
    for child in kind.__subclasses__():
        found.update(_leaves(child))
    return found


def from_code(code: str, message: str, retry_after: float | None = None) -> AutoGLMError:
    """The exception for an error that came over the wire; unknown codes are ServerError."""
    return _leaves(AutoGLMError).get(code, ServerError)(message, retry_after=retry_after)
