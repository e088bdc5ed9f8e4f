"""The configuration: one frozen tree of structs, from a YAML file and `--set key.path=value`.

Every field has a default; unknown keys are refused with the nearest right name, wrong values with
the key's full path. What a later version will know is refused with a sentence that says so,
because a limit that is accepted and then ignored would be a broken promise.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeGuard, TypeVar, cast

import msgspec

from autoglm.errors import ConfigError
from autoglm.text import one_line
from runtime.breaker import BreakerOptions
from runtime.duration import Duration, decode_duration
from runtime.priorityconfig import (
    Condition,
    KindRule,
    Share,
    check_rules,
    rule_sections,
    with_shares,
    written_out,
)
from runtime.queueconfig import QueueConfig, TenantConfig, sections, with_built_in

Count = Annotated[int, msgspec.Meta(ge=1)]
Milliseconds = Annotated[float, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]
PositiveSeconds = Annotated[float, msgspec.Meta(gt=0)]
S = TypeVar("S", bound=msgspec.Struct)
Rate = Annotated[float, msgspec.Meta(ge=0)]


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class SimulatedConfig(_Section, frozen=True):
    """`engine.simulated`: how the simulated engine behaves. 0 means no delay."""

    load_s: Seconds = 0.2
    step_ms: Milliseconds = 10
    """One step yields one token for each running request."""
    prefill_tok_s: Rate = 10_000
    output_tokens: Count = 16


class EngineConfig(_Section, frozen=True):
    """`engine`: the model and how it is run. `auto` lets autoglm pick for the machine."""

    kind: Literal["vllm", "simulated"] = "vllm"
    model: str = "smollm2"
    """`smollm2` (packaged), `tiny` (random weights, for tests) or a model folder."""
    max_num_seqs: Count = 128
    """Slots: requests that run at once."""
    max_num_batched_tokens: Count | None = None
    max_model_len: Count | None = None
    """Tokens of prompt and answer together; None: what the model was made for."""
    replicas: Count = 1
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    threads: str = "auto"
    """CPUs the engine computes on: `auto`, `nobind`, or a list such as `0-3`."""
    kv_cache_gib: Annotated[float, msgspec.Meta(gt=0)] | None = None
    compile: bool = False
    """Compile the model: slower to load, a little faster to run."""
    faults: bool = False
    """Fault marks in prompts act (simulated engine only)."""
    watchdog_s: PositiveSeconds = 60
    load_timeout_s: PositiveSeconds = 600
    checkpoint_tokens: Count | None = None
    """An answer is kept in the store each time it is so many tokens longer, so that it goes on
    from there after a death; null: never.
    """
    simulated: SimulatedConfig = SimulatedConfig()

    @property
    def what(self) -> str:
        """What an answer or a breaker is of: with another kind or model, it is another thing."""
        return f"{self.kind} {self.model}"


class BatchConfig(_Section, frozen=True):
    """`batch`: how the batcher merges new arrivals."""

    window_ms: Milliseconds = 10
    max_size: Count | None = None
    """Requests in one batch; None: as many as the engine has slots."""


class SchedulerConfig(_Section, frozen=True):
    """`scheduler`: what runs next."""

    policy: Literal["mlfq", "round_robin", "priority", "fifo"] = "mlfq"
    """`mlfq`: shares of queues and tenants in tokens, in them by rank; `round_robin`: the same in
    tasks; `priority`: by rank alone; `fifo`: in order of submission.
    """
    max_pending: Count | None = None
    """Tasks of all tenants that wait at most; what does not fit is refused. None: any number."""
    max_pending_bytes: Count | None = None
    """Bytes of prompts that wait at most, as stored."""
    preemption: bool = True
    """Whether running tasks are stopped for urgent ones (priority 0 and 1) at a full engine."""


class RetryConfig(_Section, frozen=True):
    """`retry`: what happens to a task whose attempt failed (full jitter)."""

    max_attempts: Count = 3
    base_ms: Milliseconds = 100
    cap_ms: Milliseconds = 5_000
    attempt_timeout_s: PositiveSeconds = 300


class RetentionConfig(_Section, frozen=True):
    """`retention`: how long what has ended is kept. null: for ever."""

    results: Duration | None = None
    """Tasks with their answers, and jobs as a whole, counted from their end."""
    events: Duration | None = None
    """The event log of tasks that have ended, where it is to go before they do."""


class EngineBreaker(BreakerOptions, frozen=True):
    """Engines take long to load: they are held longer at first."""

    delay_first_s: float = 5.0


class SupervisionConfig(_Section, frozen=True):
    """`supervision`: when what keeps failing is held back, for how long, and when it is given up.

    See runtime.breaker.BreakerOptions for the keys of both.
    """

    actors: BreakerOptions = BreakerOptions()
    engines: EngineBreaker = EngineBreaker()
    start_timeout_s: PositiveSeconds = 30
    """An actor that has not started by then has failed. Those that wait for the store may."""


class Config(_Section, frozen=True):
    """The whole configuration."""

    engine: EngineConfig = EngineConfig()
    batch: BatchConfig = BatchConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    retry: RetryConfig = RetryConfig()
    retention: RetentionConfig = RetentionConfig()
    supervision: SupervisionConfig = SupervisionConfig()
    drills: bool = False
    """Whether the operator may rehearse failures on this server."""
    queues: dict[str, QueueConfig] = msgspec.field(default_factory=lambda: with_built_in({}))
    tenants: dict[str, TenantConfig] = {}
    priority_rules: dict[str, KindRule] = {}
    """By kind: its priority, or a section."""
    priority_conditions: tuple[Condition, ...] = ()
    """The first that holds of a task gives it its priority."""
    priority_factors: dict[str, Share] = {}
    """How much each named number of a task counts towards its priority."""


_NOT_YAML = (
    *(msgspec.DecodeError, RecursionError, ArithmeticError, AttributeError),
    *(LookupError, TypeError, ValueError),
)
"""What the parser raises: not YAML, nesting without end, and PyYAML's own stumbles over a value
that is not of the type its tag names, such as `!!timestamp x`.
"""
_LATER = {
    "callback_url": "callbacks",
}


def load(file: Path | None = None, settings: Iterable[str] = ()) -> Config:
    """The configuration from `file` (YAML), then each `key.path=value` of `settings` in order.

    Raises ConfigError with one line that names the file or key and says what is wrong.
    """
    tree = _read(file) if file else {}
    for setting in settings:
        _set(tree, setting)
    _refuse_unknown(tree, Config, "")
    for name, kind in (("queues", QueueConfig), ("tenants", TenantConfig)):
        for path, section in sections(name, tree.get(name)).items():
            _refuse_unknown(section, kind, path)
            _convert(section, kind, path)
    tree = written_out(tree)
    for path, section, kind in rule_sections(tree):
        _refuse_unknown(section, kind, path)
        _convert(section, kind, path)
    config = _convert(tree, Config)
    rules = config.priority_rules
    queues = with_built_in(with_shares(config.queues, rules))
    check_rules(rules, config.priority_conditions, config.priority_factors, queues)
    return msgspec.structs.replace(config, queues=queues)


def _convert(tree: Mapping[str, Any], section: type[S], path: str = "") -> S:
    try:
        return msgspec.convert(tree, section, strict=False, dec_hook=decode_duration)
    except msgspec.ValidationError as error:
        raise ConfigError(f"configuration: {path}{_readable(str(error))}") from None


def _read(file: Path) -> dict[str, Any]:
    try:
        tree = msgspec.yaml.decode(file.read_bytes())
    except OSError as error:
        raise ConfigError(f"configuration file {file}: {error.strerror}") from None
    except _NOT_YAML as error:
        raise ConfigError(f"configuration file {file} is not YAML: {_one_line(error)}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"configuration file {file}: expected keys and values at the top")
    return cast("dict[str, Any]", tree)


def _set(tree: dict[str, Any], setting: str) -> None:
    path, equals, text = setting.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"--set {setting}: expected key.path=value, e.g. batch.window_ms=5")
    try:
        data = text.encode()
    except UnicodeEncodeError:  # it comes from a command line that is not UTF-8
        raise ConfigError(f"--set {setting!a}: not valid Unicode") from None
    try:
        value = msgspec.yaml.decode(data)
    except _NOT_YAML:
        value = text
    for key in keys[:-1]:
        branch = tree.setdefault(key, {})
        if not isinstance(branch, dict):
            raise ConfigError(f"--set {setting}: {key} is a value, not a section")
        tree = cast("dict[str, Any]", branch)
    tree[keys[-1]] = value


def _refuse_unknown(tree: Mapping[str, Any], section: type[msgspec.Struct], path: str) -> None:
    fields = {field.name: field for field in msgspec.structs.fields(section)}
    for key, value in tree.items():
        name = f"{path}{key}"
        if key not in fields:
            raise ConfigError(_unknown(name, str(key), fields))
        kind = fields[key].type
        if _is_section(kind) and isinstance(value, dict):
            _refuse_unknown(cast("dict[str, Any]", value), kind, f"{name}.")


def _is_section(kind: object) -> TypeGuard[type[msgspec.Struct]]:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _unknown(name: str, key: str, fields: Iterable[str]) -> str:
    if name in _LATER:
        return f"{name}: {_LATER[name]} are not available in this version yet"
    near = difflib.get_close_matches(key, list(fields), n=1)
    prefix = name[: len(name) - len(key)]
    hint = (
        f"did you mean {prefix}{near[0]}?" if near else f"known here: {', '.join(sorted(fields))}"
    )
    return f"unknown configuration key {one_line(name, 80)}; {hint}"


def _readable(message: str) -> str:
    """msgspec's `Expected … - at `$.engine.model`` as `engine.model: expected …`."""
    what, _, where = message.partition(" - at `$")
    where = where.strip("`.")
    return f"{where}: {what[0].lower()}{what[1:]}" if where else what


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
