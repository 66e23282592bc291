"""How often a client may call: so many requests in any 60 s, over all processes.

Requests are counted in this process, in leases taken ahead from counters that all processes share: one
message to NATS pays for up to 1 % of the limit. While NATS is away each process lets through its share: the
part of the client's requests that it had before, or an equal part of a client that it did not know.
"""

import asyncio
import math
import time
from contextlib import suppress
from ipaddress import IPv6Address

from adapter.core.errors import Unavailable
from adapter.core.metrics import Metrics
from adapter.core.types import Client, Quota
from adapter.security.counters import Counters, Oldest
from adapter.security.peers import Peers
from adapter.security.window import WINDOW_S, SlidingWindow

_MOST_ADDRESSES = 10_000
_MANY_ACCOUNTS = 10_000
"""From here on those that are not used are forgotten."""
_LEASE_S = 10.0
_FAST_S, _SLOW_S = 0.5, 2.0
"""A lease that was used up faster than this is followed by a larger one, slower than that by a smaller."""
_LEASES_PER_LIMIT = 100
_ASK_AGAIN_S = 1.0


class _Account:
    """What this process knows of one client's use of its limit."""

    def __init__(self, client: str) -> None:
        self.client = client
        self.own = SlidingWindow()
        """What this process let through."""
        self.left = 0
        """What is left of the lease."""
        self.lease_until = 0.0
        self.leased = 0.0
        self.size = 1
        self.used = 0
        """What all processes had taken when this one took its lease."""
        self.before: int | None = None
        """The counter at the window's beginning, or earlier."""
        self.lease_limit = 0
        """Under which limit it was taken: a client's keys may have several, and a key's may be changed."""
        self.full_until = 0.0
        self.full_limit = 0
        """The highest that nothing is left of until then."""
        self.share: float | None = None
        """This process's part of the limit while NATS is away."""
        self.epoch: object = None
        """Which counters the leases came from."""
        self.debt = 0
        """What was let through while NATS was away, and not yet told."""
        self.refilling: asyncio.Task[None] | None = None

    def may_spend(self, limit: int, now: float) -> bool:
        """Whether something is left of the lease for a request under this limit."""
        if self.left <= 0 or now >= self.lease_until:
            return False
        return limit >= self.lease_limit or self.used - self.left < limit

    def is_full(self, limit: int, now: float) -> bool:
        """Whether nothing is to be had under this limit for now."""
        return now < self.full_until and limit <= self.full_limit


class SharedRateLimiter:
    """`adapter.core.ports.RateLimiter`. Without counters it limits this process alone."""

    def __init__(
        self,
        limit_per_minute: int,
        metrics: Metrics,
        counters: Counters | None = None,
        peers: Peers | None = None,
    ) -> None:
        self._limit = limit_per_minute
        self._metrics = metrics
        decisions = metrics.rate_limit_decisions
        self._admitted, self._refused = decisions.labels("admitted"), decisions.labels("refused")
        self._local = decisions.labels("local")
        self._counters = counters
        self._peers = peers
        self._accounts: dict[str, _Account] = {}
        self._failures: dict[str, SlidingWindow] = {}
        self._next_sweep = 0.0

    async def admit(self, client: Client) -> Quota | None:
        """See `RateLimiter.admit`."""
        limit = self._limit if client.rate_per_minute is None else client.rate_per_minute
        if limit == 0:
            return None
        account = self._accounts.get(client.id) or self._open_account(client.id)
        while True:
            now = time.monotonic()
            if account.may_spend(limit, now):
                account.left -= 1
                account.own.add(now)
                if account.left <= account.size // 4:
                    self._refill(account, limit)
                self._admitted.inc()
                return Quota(limit, max(0, limit - account.used + account.left), WINDOW_S)
            if self._counters is None or not self._counters.available:
                return self._admit_locally(account, limit, now)
            if account.is_full(limit, now):
                return self._refuse(account, limit, math.ceil(account.full_until - now))
            await asyncio.shield(self._refill(account, limit))

    def failed(self, address: str) -> Quota | None:
        """See `RateLimiter.failed`. Counted in this process alone; as many may fail as a client may call."""
        if self._limit == 0:
            return None
        now = time.monotonic()
        address = _site(address)
        # The address that failed last stands last.
        window = self._failures.pop(address) if address in self._failures else SlidingWindow()
        self._failures[address] = window
        if len(self._failures) > _MOST_ADDRESSES:
            del self._failures[next(iter(self._failures))]
        window.forget(now)
        if window.total >= self._limit:
            return Quota(self._limit, 0, window.wait(now), granted=False)
        window.add(now)
        return Quota(self._limit, self._limit - window.total, WINDOW_S)

    async def close(self) -> None:
        """Stop what runs in the background."""
        tasks = [account.refilling for account in self._accounts.values() if account.refilling]
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task

    def _open_account(self, client: str) -> _Account:
        now = time.monotonic()
        if len(self._accounts) >= _MANY_ACCOUNTS and now >= self._next_sweep:
            self._next_sweep = now + _LEASE_S
            for account in list(self._accounts.values()):
                account.own.forget(now)
                if account.own.total == 0 and account.refilling is None:
                    del self._accounts[account.client]
        return self._accounts.setdefault(client, _Account(client))

    def _admit_locally(self, account: _Account, limit: int, now: float) -> Quota:
        account.own.forget(now)
        if account.share is None:
            mine = account.own.total + account.left
            known = account.before is not None and now - account.leased < WINDOW_S and account.used > 0
            peers = self._peers.count() if self._peers else 1
            account.share = min(1.0, mine / account.used) if known else 1 / peers
            # What is left of the lease is in the shared count, and in this process's own from here on.
            account.debt -= account.left
            account.left = 0
        quota = max(1, round(limit * account.share))
        if account.own.total >= quota:
            return self._refuse(account, limit, account.own.wait(now))
        self._local.inc()
        account.own.add(now)
        account.debt += 1
        return Quota(limit, quota - account.own.total, WINDOW_S)

    def _refuse(self, account: _Account, limit: int, reset_s: int) -> Quota:
        self._refused.inc()
        self._metrics.limited(account.client)
        return Quota(limit, 0, reset_s, granted=False)

    def _refill(self, account: _Account, limit: int) -> asyncio.Task[None]:
        """Take the next lease in the background; one at a time."""
        if account.refilling is None:
            account.refilling = asyncio.create_task(self._lease(account, limit))
        return account.refilling

    async def _lease(self, account: _Account, limit: int) -> None:
        try:
            now = time.monotonic()
            full = account.is_full(limit, now)
            if self._counters is not None and self._counters.available and not full:
                await self._take(self._counters, account, limit, now)
        except Unavailable:
            pass  # `admit` looks whether the counters are available
        finally:
            account.refilling = None

    async def _take(self, counters: Counters, account: _Account, limit: int, now: float) -> None:
        if now - account.leased >= WINDOW_S:
            account.before = None  # the counter may have begun anew since
        if account.share is not None:
            await self._settle(counters, account)
        pace = now - account.leased
        size = account.size * 2 if pace < _FAST_S else account.size // 2 if pace > _SLOW_S else account.size
        account.epoch = counters.epoch
        wanted = account.size = max(1, min(size, limit // _LEASES_PER_LIMIT))
        total = await counters.add(account.client, wanted)
        oldest: Oldest | None = None
        if account.before is None or not 0 <= total - account.before <= limit:
            oldest = await counters.oldest(account.client)
            account.before = oldest.before if oldest else total - wanted
        granted = max(0, min(wanted, limit - (total - wanted - account.before)))
        now = time.monotonic()
        account.used = total - wanted + granted - account.before
        account.left = (account.left if now < account.lease_until else 0) + granted
        account.leased, account.lease_until = now, now + _LEASE_S
        if granted:
            account.lease_limit = limit
        if granted < wanted:
            account.size = 1
            free_in_s = oldest.expires_in_s if oldest else _ASK_AGAIN_S
            account.full_until, account.full_limit = now + max(0.02, free_in_s), limit
            await counters.add(account.client, granted - wanted)

    async def _settle(self, counters: Counters, account: _Account) -> None:
        """Tell what was let through while NATS was away, or all of it to counters that began anew.

        From here on it counts for a whole minute, which errs on the safe side.
        """
        account.own.forget(time.monotonic())
        same = counters.epoch == account.epoch
        await counters.add(
            account.client, min(account.debt, account.own.total) if same else account.own.total
        )
        account.before, account.share, account.debt = None, None, 0


def _site(address: str) -> str:
    """What one host may have to itself: an IPv4 address, or an IPv6 network of 64 bits (RFC 6177)."""
    try:
        ip = IPv6Address(address)
    except ValueError:
        return address
    return str(ip.ipv4_mapped or f"{int(ip) >> 64:x}::/64")
