"""What a seed stands for: how big everything is, who asks for what, and what goes wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Literal

import msgspec

from autoglm.degrade import Degrade
from runtime.config import (
    BatchConfig,
    Config,
    Duration,
    EngineBreaker,
    EngineConfig,
    RetryConfig,
    SchedulerConfig,
    SimulatedConfig,
    SupervisionConfig,
)
from runtime.queueconfig import QueueConfig, TenantConfig, with_built_in
from tests.simulation.world import Universe

Policy = Literal["mlfq", "round_robin", "priority", "fifo"]
POLICIES: tuple[Policy, ...] = ("mlfq", "mlfq", "round_robin", "priority", "fifo")
OUTPUT_TOKENS = (1, 3, 6)
OVERFLOWS: tuple[Literal["wait", "reject", "archive", "refuse_lower"], ...] = (
    *("wait", "reject", "archive", "refuse_lower"),
)
REQUEST_MAX = 6
"""Tasks that somebody hands in at once: a lower limit would keep them out for ever."""
CRASH, HANG = "[[crash]]", "[[hang]]"
POISON = (CRASH, HANG)
"""Marks that end the engine each time."""
FAILING = {"[[error]]": 3, "[[invalid]]": 1, "[[slow:30]]": 3}
"""Marks that fail the attempt, and after how many failures the task is dead."""
FAILING_FAST = ("[[error]]", "[[invalid]]")


DEGRADES: tuple[Degrade, ...] = ("queue", "fail_fast", "cached", "cached", "default")
DEFAULT_TEXT = "nobody is there"


@dataclass(eq=False)
class Errand:
    """Something a person does: some prompts, handed in somehow."""

    who: str
    number: int
    how: str
    prompts: list[str]


class Plan:
    def __init__(self, universe: Universe) -> None:
        rng = universe.rng("plan")
        self._rng = rng
        self.poisoned = rng.random() < 0.25
        """Some prompts kill the engine. Then nothing else does: a suspect that is alone when the
        engine dies is taken for the culprit, and rightly so.
        """
        self.failing = rng.random() < 0.3
        self.tight = rng.random() < 0.25
        """Every mailbox holds one message."""
        self.all_ones = self.tight and universe.rng("bounds").random() < 0.5
        """And every other bound is one too."""
        keys = [2, 4, 8] if rng.random() < 0.5 else [None]  # the scheduler sees only so many tasks
        self.keys_max = 2 if self.all_ones else universe.rng("window").choice(keys)
        """None: as in production. Two is the least: when there are too many, half must stay."""
        self.server_kills = rng.choice([0, 0, 1, 2, 5])
        self.power_losses = rng.random() < 0.5
        self.checkpoints = universe.rng("checkpoints").choice([0, 0, 0.05, 0.5])
        """The share of commits that a checkpoint of the log follows."""
        self.replicas_change = universe.rng("replicas").random() < 0.3
        """The first start has two engines and the others one: an owner of tasks vanishes."""
        self.cuts = universe.rng("cuts").choice([0, 0, 3, 30])
        """Connections that break in the middle, at any byte of either direction."""
        self.drains = rng.choice([0, 0, 0, 1])
        self.raises = rng.choice([0, 0, 1, 3, 6])
        self.refusals = rng.choice([0, 0, 0, 1, 2])
        self.engine_deaths = 0 if self.poisoned else rng.choice([0, 0, 1, 2])
        """Two at most: after two, who was there is a suspect."""
        self.slow = self.failing and not self.poisoned and not self.engine_deaths
        """Some prompts take longer than an attempt may. The watchdog must not come first then."""
        self.store_delay_s = rng.choice([0.0005, 0.003, 0.003, 0.1])
        self.net_delay_s = rng.choice([0.0001, 0.005, 0.05])
        self.clock_jumps = (-86_400, -3_600, 0, 0, 3_600, 86_400)
        self.vandal = rng.random() < 0.2
        self.watched = universe.rng("manager").random() < 0.5
        """A service manager wants to hear that the server is alive."""
        self.people = [f"person-{number}" for number in range(1, rng.randint(1, 3) + 1)]
        self.tokens = rng.choice(OUTPUT_TOKENS)
        partials = universe.rng("partials")
        every, self.tokens = partials.choice([*2 * [(None, self.tokens)], (1, 6), (4, 20), (1, 20)])
        self.hurried = universe.rng("hurry").random() < 0.25
        """Few slots, long answers, and what comes is urgent or not urgent at all."""
        self.tokens = 20 if self.hurried else self.tokens
        self.small_slices = universe.rng("slices").random() < 0.3  # of what waits for others
        shares, limits = universe.rng("shares"), universe.rng("limits")
        self.config = Config(
            engine=self._engine(rng, every),
            scheduler=self._scheduler(shares.choice(POLICIES), limits),
            queues=with_built_in({"normal": QueueConfig(max_running=shares.choice([None, 1, 3]))}),
            tenants={"default": self._tenant(shares.choice([None, None, 1, 2]), limits)},
            batch=BatchConfig(window_ms=rng.choice([0, 10, 10, 100])),
            retry=RetryConfig(
                base_ms=rng.choice([1, 100]), cap_ms=500, attempt_timeout_s=2 if self.slow else 15
            ),
        )
        self.jumps_while_up = rng.choice([0, 1, 3, 6])
        """How often the wall clock jumps under a running server."""
        self.degrade = not self.poisoned and universe.rng("degrade").random() < 0.4
        """Queues do all sorts of things while no engine can serve, and that happens."""
        steering = universe.rng("steering")
        self.steered = steering.random() < 0.4
        """Somebody pauses and resumes, and queues let nothing wait for long."""
        self._let_queues_overflow(steering)
        self._errands = {who: list(self._errands_of(who)) for who in self.people}
        if self.degrade:
            self._degrade(universe.rng("degraded"))

    def _engine(self, rng: Random, checkpoint_tokens: int | None) -> EngineConfig:
        drawn = rng.choice([1, 2, 4, 8])
        return EngineConfig(
            kind="simulated",
            max_num_seqs=max(2, drawn // 2) if self.hurried else drawn,
            replicas=rng.choice([1, 1, 2]),
            faults=True,
            watchdog_s=60 if self.slow else 3,
            load_timeout_s=5,
            checkpoint_tokens=checkpoint_tokens,
            simulated=self._simulated(rng),
        )

    @staticmethod
    def _scheduler(policy: Policy, rng: Random) -> SchedulerConfig:
        tasks = rng.choice([None, None, REQUEST_MAX, REQUEST_MAX + 3])
        return SchedulerConfig(policy, tasks, rng.choice([None, None, 400 * REQUEST_MAX]))

    @staticmethod
    def _tenant(max_running: int | None, rng: Random) -> TenantConfig:
        return TenantConfig(
            max_running=max_running,
            max_pending=rng.choice([None, None, REQUEST_MAX]),
            tasks_per_s=rng.choice([None, None, REQUEST_MAX]),
            tokens_per_min=rng.choice([None, None, 200]),
            over_quota=rng.choice(["hold", "reject"]),
        )

    def config_at_start(self, number: int) -> Config:
        """The configuration that the server's start `number` finds."""
        if not self.replicas_change:
            return self.config
        engine = msgspec.structs.replace(self.config.engine, replicas=2 if number == 1 else 1)
        return msgspec.structs.replace(self.config, engine=engine)

    @property
    def replicas_max(self) -> int:
        return 2 if self.replicas_change else self.config.engine.replicas

    def priority(self, drawn: int) -> int:
        """Of a task for which 0 to 9 was drawn."""
        return (0 if drawn < 3 else 9) if self.hurried else drawn

    def errands(self, who: str) -> list[Errand]:
        return self._errands[who]

    def prompts(self) -> list[str]:
        return [
            prompt
            for errands in self._errands.values()
            for errand in errands
            for prompt in errand.prompts
        ]

    def _simulated(self, rng: Random) -> SimulatedConfig:
        return SimulatedConfig(
            load_s=rng.choice([0, 0.3]),
            step_ms=max(rng.choice([0, 10, 10, 40]), 30 * self.hurried),
            prefill_tok_s=rng.choice([0, 1000]),
            output_tokens=self.tokens,
        )

    def _errands_of(self, who: str) -> Iterator[Errand]:
        rng = self._rng
        for number in range(rng.randint(1, 5)):
            how = rng.choice(["submit", "submit", "submit", "cancel", "stream", "job", "look"])
            count = 0 if how == "look" else rng.choice([1, 2, 6])
            prompts = [f"{who} {number} {place}{self._mark()}" for place in range(count)]
            yield Errand(who, number, how, prompts)

    def _let_queues_overflow(self, rng: Random) -> None:
        queues = dict(self.config.queues)
        for name in rng.sample(sorted(queues), rng.randint(0, 2) if self.steered else 0):
            queues[name] = msgspec.structs.replace(
                queues[name],
                max_wait=Duration(rng.choice([0.3, 2])),
                overflow=rng.choice(OVERFLOWS),
            )
        self.config = msgspec.structs.replace(self.config, queues=queues)

    def _degrade(self, rng: Random) -> None:
        """Every death of an engine opens its breaker, and people ask for the same again."""
        if not self.slow:
            self.engine_deaths = max(1, self.engine_deaths)
        queues = {
            name: msgspec.structs.replace(
                queue, degrade=rng.choice(DEGRADES), default_text=DEFAULT_TEXT
            )
            for name, queue in self.config.queues.items()
        }
        delay_s = rng.choice([2, 6, 20])
        breaker = EngineBreaker(consecutive_max=0, delay_first_s=delay_s, delay_max_s=delay_s)
        supervision = SupervisionConfig(engines=breaker)
        self.config = msgspec.structs.replace(self.config, queues=queues, supervision=supervision)
        asked = self.prompts()
        for who, errands in self._errands.items():
            for number in range(len(errands), len(errands) + rng.randint(2, 5)):
                how = rng.choice(["submit", "submit", "stream", "job"])
                prompts = [rng.choice(asked) for _ in range(3)] if asked else []
                if prompts:
                    errands.append(Errand(who, number, how, prompts))

    def _mark(self) -> str:
        if self.poisoned and self._rng.random() < 0.1:
            return f" {self._rng.choice(POISON)}"
        if self.failing and self._rng.random() < 0.2:
            return f" {self._rng.choice(list(FAILING) if self.slow else FAILING_FAST)}"
        return ""
