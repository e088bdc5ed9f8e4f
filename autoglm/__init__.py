"""autoglm: hand prompts to a durable offline inference queue and get every answer once.

    from autoglm import Client

    async with Client() as client:
        async for result in client.map(prompts):
            print(result.text)

Importing this needs msgspec and anyio alone; the server lives in packages that it never imports.
`autoglm.sync`, `AutoGLM` and `GLMConfig`, for callers that block, are loaded when they are used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from autoglm.client import Client
from autoglm.deadletter import Content, DeadLetter, DeadLetterInFull, Failure
from autoglm.degrade import QueueStatus
from autoglm.drill import Drill, DrillReport
from autoglm.errors import (
    AutoGLMError,
    ConfigError,
    Conflict,
    EngineUnavailable,
    InvalidAnswer,
    InvalidRequest,
    NotAllowed,
    NotFound,
    ProtocolError,
    ServerBusy,
    ServerError,
    ServerNotRunning,
    ServerUnavailable,
    TaskCancelled,
    TaskDead,
    TaskError,
    TaskExpired,
    UsageError,
)
from autoglm.eta import Eta
from autoglm.ids import Ids
from autoglm.pruneclient import Removed
from autoglm.result import Parsed, Result
from autoglm.retry import Patience
from autoglm.status import Status
from autoglm.streaming import Chunk
from autoglm.types import (
    Answer,
    Choice,
    Event,
    Likely,
    Message,
    Output,
    Sampling,
    Task,
    TaskSpec,
    TaskState,
    TokenLogprob,
    Usage,
)

if TYPE_CHECKING:
    from autoglm import sync
    from autoglm.glm import AutoGLM, GLMConfig

__version__ = "0.1.0"
_LATER = {"AutoGLM": "autoglm.glm", "GLMConfig": "autoglm.glm"}

__all__ = [
    "Answer",
    "AutoGLM",
    "AutoGLMError",
    "Choice",
    "Chunk",
    "Client",
    "ConfigError",
    "Conflict",
    "Content",
    "DeadLetter",
    "DeadLetterInFull",
    "Drill",
    "DrillReport",
    "EngineUnavailable",
    "Eta",
    "Event",
    "Failure",
    "GLMConfig",
    "Ids",
    "InvalidAnswer",
    "InvalidRequest",
    "Likely",
    "Message",
    "NotAllowed",
    "NotFound",
    "Output",
    "Parsed",
    "Patience",
    "ProtocolError",
    "QueueStatus",
    "Removed",
    "Result",
    "Sampling",
    "ServerBusy",
    "ServerError",
    "ServerNotRunning",
    "ServerUnavailable",
    "Status",
    "Task",
    "TaskCancelled",
    "TaskDead",
    "TaskError",
    "TaskExpired",
    "TaskSpec",
    "TaskState",
    "TokenLogprob",
    "Usage",
    "UsageError",
    "__version__",
    "sync",
]


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    if name == "sync":
        return importlib.import_module("autoglm.sync")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
