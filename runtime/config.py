"""The configuration: one frozen tree of structs, every field with its default and what it is for.

The texts are `doc`s, because the schema, `autoglm config show` and docs/configuration.md are made
from them. How a file and `--set` become this tree is in runtime.configload.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from runtime.breaker import BreakerOptions
from runtime.configdoc import doc
from runtime.duration import Duration
from runtime.priorityconfig import Condition, KindRule, Share
from runtime.queueconfig import QueueConfig, TenantConfig, with_built_in

Count = Annotated[int, msgspec.Meta(ge=1)]
Milliseconds = Annotated[float, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]
PositiveSeconds = Annotated[float, msgspec.Meta(gt=0)]
PositiveGiB = Annotated[float, msgspec.Meta(gt=0)]
Rate = Annotated[float, msgspec.Meta(ge=0)]


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class SimulatedConfig(_Section, frozen=True):
    """How the simulated engine behaves. 0 means no delay."""

    load_s: Annotated[Seconds, doc("Seconds that loading takes.")] = 0.2
    step_ms: Annotated[
        Milliseconds,
        doc("Milliseconds of a step, which yields one token for each running request."),
    ] = 10
    prefill_tok_s: Annotated[Rate, doc("Tokens of prompts that it reads in a second.")] = 10_000
    output_tokens: Annotated[Count, doc("Tokens of an answer.")] = 16


class EngineConfig(_Section, frozen=True):
    """The model and how it is run. `auto` lets autoglm pick for the machine."""

    kind: Annotated[Literal["vllm", "simulated"], doc("What runs the model.")] = "vllm"
    model: Annotated[
        str, doc("`smollm2` (packaged), `tiny` (random weights, for tests) or a model folder.")
    ] = "smollm2"
    max_num_seqs: Annotated[Count, doc("Slots: requests that run at once.")] = 128
    max_num_batched_tokens: Annotated[
        Count | None, doc("Tokens that one step computes at most. null: the engine's own default.")
    ] = None
    max_model_len: Annotated[
        Count | None,
        doc("Tokens of prompt and answer together. null: what the model was made for."),
    ] = None
    replicas: Annotated[Count, doc("Engines that serve side by side.")] = 1
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"], doc("The number format.")
    ] = "auto"
    threads: Annotated[
        str, doc("CPUs the engine computes on: `auto`, `nobind`, or a list such as `0-3`.")
    ] = "auto"
    kv_cache_gib: Annotated[
        PositiveGiB | None, doc("GiB of memory for the KV cache. null: picked for the machine.")
    ] = None
    compile: Annotated[bool, doc("Compile the model: slower to load, a little faster to run.")] = (
        False
    )
    faults: Annotated[bool, doc("Fault marks in prompts act (simulated engine only).")] = False
    watchdog_s: Annotated[
        PositiveSeconds, doc("Seconds without progress after which an engine is taken for hung.")
    ] = 60
    load_timeout_s: Annotated[PositiveSeconds, doc("Seconds that loading may take.")] = 600
    checkpoint_tokens: Annotated[
        Count | None,
        doc(
            "An answer is kept in the store each time it is so many tokens longer, so that it goes"
            " on from there after a death. null: never."
        ),
    ] = None
    simulated: SimulatedConfig = SimulatedConfig()

    @property
    def what(self) -> str:
        """What an answer or a breaker is of: with another kind or model, it is another thing."""
        return f"{self.kind} {self.model}"


class BatchConfig(_Section, frozen=True):
    """How the batcher merges new arrivals."""

    window_ms: Annotated[
        Milliseconds, doc("Milliseconds that a new arrival waits for others at most.")
    ] = 10
    max_size: Annotated[
        Count | None, doc("Requests in one batch. null: as many as the engine has slots.")
    ] = None


class SchedulerConfig(_Section, frozen=True):
    """What runs next."""

    policy: Annotated[
        Literal["mlfq", "round_robin", "priority", "fifo"],
        doc(
            "`mlfq`: shares of queues and tenants in tokens, in them by rank; `round_robin`: the"
            " same in tasks; `priority`: by rank alone; `fifo`: in order of submission."
        ),
    ] = "mlfq"
    max_pending: Annotated[
        Count | None,
        doc(
            "Tasks of all tenants that wait at most; what does not fit is refused. null: any"
            " number."
        ),
    ] = None
    max_pending_bytes: Annotated[
        Count | None, doc("Bytes of prompts that wait at most, as stored. null: any number.")
    ] = None
    preemption: Annotated[
        bool,
        doc("Running tasks are stopped for urgent ones (priority 0 and 1) at a full engine."),
    ] = True


class RetryConfig(_Section, frozen=True):
    """What happens to a task whose attempt failed: another one after a pause, with full jitter."""

    max_attempts: Annotated[Count, doc("Failures of its own that end a task for good.")] = 3
    base_ms: Annotated[
        Milliseconds, doc("Milliseconds of the first pause; doubles with each failure.")
    ] = 100
    cap_ms: Annotated[Milliseconds, doc("Milliseconds of the longest pause.")] = 5_000
    attempt_timeout_s: Annotated[PositiveSeconds, doc("Seconds that one attempt may take.")] = 300


class RetentionConfig(_Section, frozen=True):
    """How long what has ended is kept. null: for ever."""

    results: Annotated[
        Duration | None,
        doc("Tasks with their answers, and jobs as a whole, counted from their end."),
    ] = None
    events: Annotated[
        Duration | None,
        doc("The event log of tasks that have ended, where it is to go before they do."),
    ] = None


class EngineBreaker(BreakerOptions, frozen=True):
    """Engines take long to load: they are held longer at first."""

    delay_first_s: Annotated[
        float, doc("Seconds that it stays open at first, with full jitter; doubles each time.")
    ] = 5.0


class SupervisionConfig(_Section, frozen=True):
    """When what keeps failing is held back, for how long, and when it is given up."""

    actors: BreakerOptions = BreakerOptions()
    engines: EngineBreaker = EngineBreaker()
    start_timeout_s: Annotated[
        PositiveSeconds,
        doc(
            "Seconds after which an actor that has not started has failed. Those that wait for the"
            " store may take longer."
        ),
    ] = 30


class Config(_Section, frozen=True):
    """The configuration of a server."""

    engine: EngineConfig = EngineConfig()
    batch: BatchConfig = BatchConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    retry: RetryConfig = RetryConfig()
    retention: RetentionConfig = RetentionConfig()
    supervision: SupervisionConfig = SupervisionConfig()
    drills: Annotated[bool, doc("Whether the operator may rehearse failures on this server.")] = (
        False
    )
    queues: Annotated[
        dict[str, QueueConfig],
        doc("By name. `core`, `normal` and `background` are there without being named."),
    ] = msgspec.field(default_factory=lambda: with_built_in({}))
    tenants: Annotated[dict[str, TenantConfig], doc("By name.")] = {}
    priority_rules: Annotated[
        dict[str, KindRule], doc("By a task's kind: its priority, or a section.")
    ] = {}
    priority_conditions: Annotated[
        tuple[Condition, ...], doc("The first that holds of a task gives it its priority.")
    ] = ()
    priority_factors: Annotated[
        dict[str, Share],
        doc("How much each named number of a task counts towards its priority, by its name."),
    ] = {}
