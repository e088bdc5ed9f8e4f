"""What runs next: never idle, never over a cap, in order, fair, and nothing forgotten."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.policy.agenda import Agenda
from actors.policy.backlog import Reading
from actors.policy.rules import ConfiguredRules
from actors.policy.running import INPUT_WEIGHT, OUTPUT_WEIGHT
from autoglm.types import Usage
from runtime.config import Config
from runtime.queueconfig import QueueConfig, TenantConfig
from runtime.store.protocol import Key, Lane, Left
from runtime.store.scheduleprotocol import Schedule

POLICIES = ("mlfq", "round_robin", "priority", "fifo")
CAPPED = Config(
    queues={"core": QueueConfig(weight=3, max_running=3), "normal": QueueConfig()},
    tenants={"a": TenantConfig(max_running=2), "b": TenantConfig(weight=2)},
)


class Stage:
    """An agenda with the store it reads, and an engine that never ends anything by itself."""

    def __init__(self, policy: str, config: Config | None = None, keys_max: int = 8) -> None:
        self.rules = ConfiguredRules(config or Config())
        self.agenda = Agenda(policy, self.rules, keys_max=keys_max)
        self.pending: dict[int, tuple[Lane, Key]] = {}
        self.running: dict[int, Lane] = {}
        self._next = 0
        self.ask()

    def arrive(self, lane: Lane, rank: int, *, urgent: bool = False) -> int:
        self._next += 1
        seq = self._next
        self.pending[seq] = (lane, (rank, seq))
        self.agenda.moved({lane: [(rank, seq)]}, [], urgent=[seq] if urgent else [])
        return seq

    def hurry(self, seq: int, by: int) -> None:
        """A more urgent task waits for it now: it has a better rank, and an old key in the window
        perhaps.
        """
        lane, (rank, _) = self.pending[seq]
        self.pending[seq] = (lane, (rank - by, seq))
        self.agenda.moved({lane: [(rank - by, seq)]}, [])

    def edit(self, seq: int, rank: int) -> None:
        """It waits at another rank from now on."""
        lane, old = self.pending[seq]
        self.pending[seq] = (lane, (rank, seq))
        self.agenda.moved({lane: [(rank, seq)]}, [], {lane: [old]})

    def end(self, seq: int, usage: Usage = Usage()) -> None:  # noqa: B008
        del self.running[seq]
        self.agenda.moved({}, [Left(seq, usage)])

    def ask(self) -> None:
        """As after a miss: everything is read from the store."""
        self.agenda.lost_count(())
        heads: dict[Lane, Key] = {}
        for lane, key in self.pending.values():
            heads[lane] = min(key, heads.get(lane, key))
        self.agenda.learned(Schedule(heads, dict(self.running)))

    def read(self) -> bool:
        """Whether there was something to read."""
        reading = self.agenda.reading_begins()
        if reading is not None:
            self.agenda.read(reading, [self._found(reading, i) for i in range(len(reading.parts))])
        return reading is not None

    def _found(self, reading: Reading, part: int) -> tuple[Key, ...]:
        wanted, after = reading.query.reads[part]
        keys = sorted(key for lane, key in self.pending.values() if lane == wanted)
        return tuple(key for key in keys if after is None or key > after)[: reading.limit]

    def take(self, count: int, *, urgent: bool = False) -> list[int]:
        """Claimed, as the store has it: only what is pending; of nothing it is tried again."""
        claimed: list[int] = []
        while not claimed and (taken := self.agenda.take(count, urgent=urgent)):
            assert len(set(taken)) == len(taken), "claimed twice at once"
            assert not self.running.keys() & set(taken), "it runs already"
            claimed = [seq for seq in taken if seq in self.pending]
            self.agenda.not_claimed(set(taken) - set(claimed))
        for seq in claimed:
            lane, _ = self.pending.pop(seq)
            self.running[seq] = lane
        return claimed

    def may_run(self, lane: Lane) -> bool:
        queue, tenant = lane
        queue_cap, tenant_cap = self.rules.queue_cap(queue), self.rules.tenant_cap(tenant)
        in_queue = Counter(queue for queue, _ in self.running.values())[queue]
        of_tenant = Counter(tenant for _, tenant in self.running.values())[tenant]
        return (queue_cap is None or in_queue < queue_cap) and (
            tenant_cap is None or of_tenant < tenant_cap
        )


LANES = st.tuples(st.sampled_from(["core", "normal", "other"]), st.sampled_from("abcdef"))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("arrive"), LANES, st.integers(0, 20)),
        st.tuples(st.just("arrive"), LANES, st.integers(0, 20)),
        st.tuples(
            st.sampled_from(["take", "take urgent", "end", "back", "hurry", "read", "ask"]),
            st.integers(0, 9),
        ),
        st.tuples(st.just("arrive urgent"), LANES, st.integers(0, 5)),
        st.tuples(st.just("edit"), st.integers(0, 20), st.integers(0, 20)),
    ),
    max_size=120,
)


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=150)
@given(steps=STEPS, keys_max=st.sampled_from([2, 4, 40]))
def test_whatever_happens_caps_hold_nothing_is_forgotten_and_no_slot_stays_idle(
    policy: str, steps: list[tuple[Any, ...]], keys_max: int
) -> None:
    stage = Stage(policy, CAPPED, keys_max)
    urgent: set[int] = set()
    for name, *what in steps:
        match name:
            case "arrive":
                stage.arrive(*what)
            case "arrive urgent":
                urgent.add(stage.arrive(*what, urgent=True))
            case "take" | "take urgent":
                taken = stage.take(what[0], urgent=name == "take urgent")
                assert name == "take" or urgent.issuperset(taken), "taken as urgent, and is not"
                for seq in taken:
                    lane = stage.running.pop(seq)
                    assert stage.may_run(lane), "over its cap"
                    stage.running[seq] = lane
            case "edit" if stage.pending:
                seq = sorted(stage.pending)[int(what[0]) % len(stage.pending)]
                stage.edit(seq, what[1])
                urgent.discard(seq)
            case "end" if stage.running:
                stage.end(list(stage.running)[int(what[0]) % len(stage.running)], Usage(3, 4))
            case "back" if stage.running:
                seq = list(stage.running)[int(what[0]) % len(stage.running)]
                lane = stage.running.pop(seq)
                stage.pending[seq] = (lane, (0, seq))
                stage.agenda.moved({lane: [(0, seq)]}, [Left(seq, Usage())])
            case "hurry" if stage.pending:
                seq = list(stage.pending)[int(what[0]) % len(stage.pending)]
                stage.hurry(seq, 1 + int(what[0]))
            case "read":
                stage.read()
            case "ask":
                stage.ask()
            case _:
                pass
    _run_out(stage)


def test_a_task_that_became_urgent_is_taken_once_and_first() -> None:
    stage = Stage("mlfq")
    for rank in (3, 5, 9):
        stage.arrive(("normal", "a"), rank)
    while stage.read():
        pass
    stage.hurry(3, by=8)
    assert stage.agenda.take(9) == (3, 1, 2)


def _run_out(stage: Stage) -> None:
    """Everything runs in the end, and no slot is idle while something may run."""
    for _ in range(1000):
        reads = 0
        while not (taken := stage.take(1)) and stage.read():
            reads += 1
            assert reads < 100, "it reads and reads"
        if taken:
            continue
        able = [lane for lane, _ in stage.pending.values() if stage.may_run(lane)]
        assert not able, f"{able} may run, and nothing is taken"
        if not stage.running:
            break
        stage.end(next(iter(stage.running)))
    assert not stage.pending


@pytest.mark.parametrize("policy", POLICIES)
@given(ranks=st.lists(st.integers(0, 50), min_size=1, max_size=60))
def test_a_lane_runs_in_the_order_of_its_ranks(policy: str, ranks: list[int]) -> None:
    stage = Stage(policy)
    for rank in ranks:
        stage.arrive(("normal", "a"), rank, urgent=rank < 10)
    order: list[int] = []
    while len(order) < len(ranks):
        stage.read()
        order += stage.take(1, urgent=True)
        order += stage.take(3)
    keys = [(ranks[seq - 1], seq) for seq in order]
    assert keys == sorted(keys)


@pytest.mark.parametrize("policy", POLICIES)
@given(
    ranks=st.lists(st.integers(0, 50), min_size=1, max_size=30),
    edits=st.lists(st.tuples(st.integers(0, 29), st.integers(0, 50)), max_size=30),
)
def test_a_lane_runs_in_the_order_of_its_ranks_as_edited(
    policy: str, ranks: list[int], edits: list[tuple[int, int]]
) -> None:
    stage = Stage(policy)
    for rank in ranks:
        stage.arrive(("normal", "a"), rank)
    stage.read()
    for place, rank in edits:
        stage.edit(place % len(ranks) + 1, rank)
    wanted = sorted(key for _, key in stage.pending.values())
    order: list[int] = []
    while len(order) < len(ranks):
        stage.read()
        order += stage.take(3)
    assert order == [seq for _, seq in wanted]


def test_what_was_urgent_and_was_edited_is_not_taken_as_urgent() -> None:
    stage = Stage("mlfq")
    seq = stage.arrive(("normal", "a"), 5, urgent=True)
    stage.edit(seq, 9)
    assert stage.take(1, urgent=True) == []
    assert stage.take(1) == [seq]


def test_a_task_edited_while_it_is_being_claimed_is_not_taken_twice() -> None:
    stage = Stage("mlfq", CAPPED)
    seq = stage.arrive(("normal", "a"), 5)
    assert stage.agenda.take(1) == (seq,)
    stage.edit(seq, 9)
    assert stage.agenda.take(9) == ()
    assert stage.agenda.running == 1


@pytest.mark.parametrize("policy", ["priority", "fifo"])
def test_by_rank_alone_queues_and_tenants_mean_nothing(policy: str) -> None:
    stage = Stage(policy, keys_max=100)
    lanes = [("core", "a"), ("normal", "b"), ("background", "c"), ("normal", "a")]
    for rank in (7, 3, 9, 1, 5, 2, 8):
        stage.arrive(lanes[rank % 4], rank)
    ranks = {seq: key[0] for seq, (_, key) in stage.pending.items()}
    assert [ranks[seq] for seq in stage.take(9)] == [1, 2, 3, 5, 7, 8, 9]


def served(
    stage: Stage, lanes: list[Lane], slots: int, tokens: Callable[[Lane], Usage], tasks: int
) -> list[Lane]:
    """Who ran, in order, when every lane always has work and the oldest task ends first."""
    order: list[Lane] = []
    running: deque[int] = deque()
    while len(order) < tasks:
        for lane in lanes:
            while sum(lane == other for other, _ in stage.pending.values()) < slots + 1:
                stage.arrive(lane, stage._next)  # pyright: ignore
        while len(running) < slots:
            stage.read()
            for seq in stage.take(slots - len(running)):
                running.append(seq)
                order.append(stage.running[seq])
        seq = running.popleft()
        stage.end(seq, tokens(stage.running[seq]))
    return order


def test_queues_share_tokens_by_weight_whatever_their_tasks_take() -> None:
    lanes = [("core", "a"), ("normal", "a"), ("background", "a")]
    long = {"core": Usage(100, 10), "normal": Usage(0, 100), "background": Usage(10, 10)}
    stage = Stage("mlfq")
    order = served(stage, lanes, 4, lambda lane: long[lane[0]], 3000)
    took: Counter[str] = Counter()
    for queue, _ in order:
        usage = long[queue]
        took[queue] += INPUT_WEIGHT * usage.prompt_tokens + OUTPUT_WEIGHT * usage.completion_tokens
    for queue in long:
        share = took[queue] / sum(took.values())
        weight = stage.rules.queue_weight(queue) / 10
        assert share == pytest.approx(weight, rel=0.05)


@pytest.mark.parametrize("tenants", [2, 50])
def test_the_gap_between_tenants_stays_within_the_bound(tenants: int) -> None:
    """Sheng et al. 2024, theorem 4.4: twice what may run at once, of the heaviest."""
    config = Config(tenants={f"t{n}": TenantConfig(weight=1 + n % 3) for n in range(tenants)})
    lanes = [("normal", f"t{n}") for n in range(tenants)]
    usage = {lane: Usage(10 * (n % 7), 5 + 20 * (n % 5)) for n, lane in enumerate(lanes)}
    slots = 8
    stage = Stage("mlfq", config, keys_max=200)
    largest = max(u.prompt_tokens + 2 * u.completion_tokens for u in usage.values())
    bound = 2 * largest * (slots + 1)
    got = dict.fromkeys(lanes, 0.0)
    warm = 4 * tenants
    for number, lane in enumerate(served(stage, lanes, slots, usage.__getitem__, 60 * tenants)):
        tokens = usage[lane].prompt_tokens + 2 * usage[lane].completion_tokens
        got[lane] += tokens / stage.rules.tenant_weight(lane[1])
        if number > warm:
            assert max(got.values()) - min(got.values()) <= bound


def test_round_robin_counts_tasks_not_tokens() -> None:
    lanes = [("normal", "a"), ("normal", "b")]
    usage = {lanes[0]: Usage(1, 1), lanes[1]: Usage(1000, 1000)}
    order = served(Stage("round_robin"), lanes, 2, usage.__getitem__, 200)
    assert order.count(lanes[0]) == order.count(lanes[1]) == 100


def test_a_million_tasks_of_one_tenant_do_not_crowd_out_the_others() -> None:
    stage = Stage("mlfq", keys_max=64)
    for rank in range(1000):
        stage.arrive(("normal", "hog"), rank)
    stage.read()
    small = [stage.arrive(("normal", f"t{n}"), 5000 + n) for n in range(20)]
    first: list[int] = []
    while len(first) < 60:
        stage.read()
        first += stage.take(8)
    assert set(small) <= set(first)
    assert stage.agenda.held <= 64


def test_what_an_earlier_scheduler_left_running_counts_towards_the_caps() -> None:
    stage = Stage("mlfq", CAPPED)
    stage.running = {100: ("normal", "a"), 101: ("core", "a")}
    stage.ask()
    waiting = stage.arrive(("normal", "a"), 1)
    assert stage.take(1) == []
    stage.end(100)
    assert stage.take(1) == [waiting]


def test_what_ended_while_the_store_was_asked_counts_no_longer() -> None:
    stage = Stage("mlfq", CAPPED)
    stage.running = {100: ("normal", "a"), 101: ("core", "a")}
    as_it_was = dict(stage.running)
    stage.agenda.lost_count(())
    stage.end(100)
    stage.agenda.learned(Schedule({}, as_it_was))
    waiting = stage.arrive(("normal", "a"), 1)
    assert stage.take(1) == [waiting]
