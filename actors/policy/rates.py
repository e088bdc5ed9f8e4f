"""Rates of tenants: tasks a second and tokens a minute. Pure; time in monotonic seconds.

With `over_quota: reject` a rate is looked at when work is handed in, with `hold` when it is to run:
then the tenant is passed over until there is room again. Tasks go by a token bucket that holds one
second's worth, at least one; tokens by the sum of the last minute, to which what runs now is added
at what tasks of the tenant took lately. One may always run while the last minute has room, so a
minute is exceeded by no more than what its last tasks took above that.

What was counted is forgotten with the server, not with the actors.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from actors.policy.running import TASK_TOKENS
from runtime.queueconfig import TenantConfig

MINUTE_S = 60
AGAIN_S = 0.001
"""The least that a hold lasts: rounding must not make it last no time at all."""
_NEARLY = 1e-9
_LEARN = 0.1


class Bucket:
    """In any `t` seconds it gives no more than `rate * t + burst`."""

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        self.burst = max(1.0, rate)
        self._level = self.burst
        self._at = now

    def has(self, now: float) -> int:
        """How many it gives now."""
        return int(self._level_at(now) + _NEARLY)

    def take(self, count: int, now: float) -> None:
        self._level = self._level_at(now) - count
        self._at = max(self._at, now)

    def wait_s(self, now: float) -> float:
        """Until it gives one."""
        return max(0.0, (1 - self._level_at(now)) / self.rate)

    def _level_at(self, now: float) -> float:
        return min(self.burst, self._level + self.rate * max(0.0, now - self._at))


class Minute:
    """What was taken in the last minute, by the second: a second leaves as a whole."""

    def __init__(self) -> None:
        self._seconds: deque[tuple[int, int]] = deque()
        self._total = 0

    def add(self, tokens: int, now: float) -> None:
        self._forget(now)
        second = int(now)
        if self._seconds and self._seconds[-1][0] >= second:
            second, before = self._seconds.pop()
            self._seconds.append((second, before + tokens))
        else:
            self._seconds.append((second, tokens))
        self._total += tokens

    def total(self, now: float) -> int:
        self._forget(now)
        return self._total

    def wait_s(self, limit: int, now: float) -> float:
        """Until the total is below `limit`, if nothing more is taken."""
        left = self.total(now)
        for second, tokens in self._seconds:
            if left < limit:
                break
            left -= tokens
            if left < limit:
                return second + 1 + MINUTE_S - now
        return 0.0

    def _forget(self, now: float) -> None:
        while self._seconds and self._seconds[0][0] + 1 + MINUTE_S <= now:
            self._total -= self._seconds.popleft()[1]


class Held(NamedTuple):
    """A tenant that may begin nothing more now."""

    limit: str
    """By its name in the configuration."""
    wait_s: float
    """Until it may again; 0: until something of it ends."""


class _Tenant:
    def __init__(self, config: TenantConfig, now: float) -> None:
        self.rejects = config.over_quota == "reject"
        self.bucket = None if config.tasks_per_s is None else Bucket(config.tasks_per_s, now)
        self.tokens_max = config.tokens_per_min
        self.minute = Minute()
        self.mean = TASK_TOKENS
        """What an attempt took lately."""


class Rates:
    def __init__(self, tenants: Mapping[str, TenantConfig], now: float) -> None:
        self.now = now
        self._tenants = {
            name: _Tenant(config, now)
            for name, config in tenants.items()
            if config.tasks_per_s is not None or config.tokens_per_min is not None
        }
        self._until: dict[str, float] = {}
        """Tenants that are held, and when to look again."""

    # ── when it is to run ────────────────────────────────────────────────────────────────────

    def holds(self, tenant: str, running: int) -> bool:
        """Whether nothing more of the tenant may begin now; so many run."""
        held = self.held(tenant, running, self.now)
        if held is not None and held.wait_s > 0:
            self._until[tenant] = self.now + held.wait_s
        return held is not None

    def held(self, tenant: str, running: int, now: float) -> Held | None:
        """What holds the tenant of which so many run; None: nothing."""
        each = self._tenants.get(tenant)
        if each is None or each.rejects:
            return None
        held: Held | None = None
        if each.bucket is not None and not each.bucket.has(now):
            held = Held("tasks_per_s", max(each.bucket.wait_s(now), AGAIN_S))
        if each.tokens_max is not None:
            spent = each.minute.total(now)
            if spent >= each.tokens_max:
                wait_s = max(each.minute.wait_s(each.tokens_max, now), AGAIN_S)
                if held is None or wait_s > held.wait_s:
                    held = Held("tokens_per_min", wait_s)
            elif held is None and running and spent + running * each.mean >= each.tokens_max:
                held = Held("tokens_per_min", 0.0)
        return held

    def limits(self, tenant: str) -> bool:
        """Whether anything of the tenant is ever held."""
        return tenant in self._tenants

    def began(self, tenant: str) -> None:
        each = self._tenants.get(tenant)
        if each is not None and each.bucket is not None and not each.rejects:
            each.bucket.take(1, self.now)

    def ended(self, tenant: str, tokens: int) -> None:
        """An attempt has ended and took so much."""
        each = self._tenants.get(tenant)
        if each is not None and tokens:
            each.minute.add(tokens, self.now)
            each.mean += _LEARN * (tokens - each.mean)

    def let_go(self) -> list[str]:
        """The tenants whose hold is over by now."""
        over = [tenant for tenant, until in self._until.items() if until <= self.now]
        for tenant in over:
            del self._until[tenant]
        return over

    @property
    def next_at(self) -> float | None:
        """When the first hold is over."""
        return min(self._until.values(), default=None)

    # ── when it is handed in ─────────────────────────────────────────────────────────────────

    def room(self, tenant: str, now: float) -> tuple[int, float, int] | None:
        """How many may be handed in now, how many a second, and how many at once at the most;
        None: any number.
        """
        each = self._tenants.get(tenant)
        if each is None or each.bucket is None or not each.rejects:
            return None
        return each.bucket.has(now), each.bucket.rate, int(each.bucket.burst)

    def taken_in(self, tenant: str, count: int, now: float) -> None:
        each = self._tenants.get(tenant)
        if each is not None and each.bucket is not None and each.rejects:
            each.bucket.take(count, now)

    def closed_s(self, tenant: str, now: float) -> float:
        """For how long nothing of it is taken in, because of the last minute's tokens."""
        each = self._tenants.get(tenant)
        if each is None or each.tokens_max is None or not each.rejects:
            return 0.0
        return each.minute.wait_s(each.tokens_max, now)
