"""The rate limit's arithmetic on a clock of its own: any 60 s, any number of processes, with NATS or not."""

import asyncio
import random
import time
from collections.abc import Coroutine
from itertools import accumulate
from typing import Any, cast

import pytest

from adapter.core.errors import Unavailable
from adapter.core.metrics import Metrics
from adapter.core.types import Client, Quota
from adapter.security.counters import Counters, Oldest
from adapter.security.peers import Peers
from adapter.security.ratelimit import SharedRateLimiter
from adapter.security.window import SlidingWindow

ALICE = Client("alice")


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    return clock


class Server:
    """What nats-server keeps: per client the additions with their times; `up` is whether it answers."""

    def __init__(self, clock: Clock) -> None:
        self.log: dict[str, list[tuple[float, int]]] = {}
        self.up = True
        self.epoch = 1
        self.requests = 0
        self._clock = clock

    @property
    def available(self) -> bool:
        return self.up

    async def add(self, client: str, count: int) -> int:
        """See `Counters.add`."""
        await self._answer()
        entries = self.log.setdefault(client, [])
        entries.append((self._clock.now, count))
        return sum(count for _, count in entries)

    async def oldest(self, client: str) -> Oldest | None:
        """See `Counters.oldest`."""
        await self._answer()
        before = 0
        for at, count in self.log.get(client, []):
            if at >= self._clock.now - 60:
                return Oldest(before, at + 60 - self._clock.now)
            before += count
        return None

    async def _answer(self) -> None:
        self.requests += 1
        await asyncio.sleep(0)
        if not self.up:
            raise Unavailable("NATS does not answer")


class FixedPeers:
    """As many processes as a test says."""

    def __init__(self, number: int) -> None:
        self.number = number

    def count(self) -> int:
        return self.number


def limiters(server: Server | None, number: int, limit: int = 1000) -> list[SharedRateLimiter]:
    counters = cast(Counters, server) if server else None
    peers = cast(Peers, FixedPeers(number))
    return [SharedRateLimiter(limit, Metrics(), counters, peers) for _ in range(number)]


async def send(
    clock: Clock, targets: list[SharedRateLimiter], rate: float, seconds: float, client: Client = ALICE
) -> list[float]:
    """Requests at an even rate to the processes in turn; returns the times of those that were let through."""
    passed = []
    started = clock.now
    for number in range(round(rate * seconds)):
        clock.now = started + number / rate
        quota = await targets[number % len(targets)].admit(client)
        if quota is None or quota.granted:
            passed.append(clock.now)
        await asyncio.sleep(0)
    clock.now = started + seconds
    return passed


def most_in_a_minute(times: list[float]) -> int:
    most, first = 0, 0
    for last, at in enumerate(times):
        while times[first] <= at - 60:
            first += 1
        most = max(most, last - first + 1)
    return most


def ideal(arrivals: list[float], limit: int) -> int:
    """How many a limit lets through that knows every request of the last 60 s."""
    passed: list[float] = []
    for at in arrivals:
        if len(passed) < limit or passed[-limit] <= at - 60:
            passed.append(at)
    return len(passed)


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


@pytest.mark.parametrize("processes", [1, 2, 5])
@pytest.mark.parametrize("rate", [20.0, 200.0, 5000.0])
def test_a_minute_lets_the_limit_through(clock: Clock, processes: int, rate: float) -> None:
    async def test() -> None:
        passed = await send(clock, limiters(Server(clock), processes), rate, 60)
        assert 980 <= len(passed) <= 1000

    run(test())


def test_no_minute_anywhere_has_more_than_the_limit(clock: Clock) -> None:
    # Bursts at the edges of minutes get twice the limit out of a fixed window.
    async def test() -> None:
        targets = limiters(Server(clock), 2)
        passed: list[float] = []
        arrivals: list[float] = []
        for rate, seconds in ((1000.0, 1), (0.1, 58), (1000.0, 2), (20.0, 100), (0.1, 30), (3000.0, 1)):
            arrivals += [clock.now + n / rate for n in range(round(rate * seconds))]
            passed += await send(clock, targets, rate, seconds)
        assert most_in_a_minute(passed) <= 1020
        assert len(passed) >= 0.97 * ideal(arrivals, 1000)

    run(test())


def test_under_the_limit_nobody_is_refused(clock: Clock) -> None:
    async def test() -> None:
        targets = limiters(Server(clock), 8)
        assert len(await send(clock, targets, 950 / 60, 600)) == 9500

    run(test())


def test_a_lease_pays_for_many_requests(clock: Clock) -> None:
    async def test() -> None:
        server = Server(clock)
        [limiter] = limiters(server, 1, limit=100_000)
        await send(clock, [limiter], 1500, 60)
        assert server.requests < 90_000 / 300

    run(test())


def test_clients_do_not_share(clock: Clock) -> None:
    async def test() -> None:
        targets = limiters(Server(clock), 2, limit=50)
        assert len(await send(clock, targets, 100, 1)) == 50
        assert len(await send(clock, targets, 10, 1, Client("bob"))) == 10

    run(test())


def test_a_clients_own_rate_goes_before(clock: Clock) -> None:
    async def test() -> None:
        targets = limiters(Server(clock), 2)
        assert len(await send(clock, targets, 100, 1, Client("slow", rate_per_minute=7))) == 7
        assert len(await send(clock, targets, 5000, 1, Client("free", rate_per_minute=0))) == 5000
        [unlimited] = limiters(Server(clock), 1, limit=0)
        assert await unlimited.admit(ALICE) is None
        assert unlimited.failed("10.0.0.1") is None

    run(test())


def test_a_rate_that_is_changed_holds_at_once(clock: Clock) -> None:
    async def test() -> None:
        targets = limiters(Server(clock), 2)
        low, high = (Client("alice", rate_per_minute=rate) for rate in (10, 500))
        assert len(await send(clock, targets, 100, 1, low)) == 10
        assert 480 <= 10 + len(await send(clock, targets, 1000, 1, high)) <= 500
        clock.now += 120
        assert len(await send(clock, targets, 100, 1, high)) == 100
        assert await send(clock, targets, 100, 1, low) == []

    run(test())


def test_two_keys_of_one_client_may_have_rates_of_their_own(clock: Clock) -> None:
    async def test() -> None:
        [limiter] = limiters(Server(clock), 1)
        passed: dict[int, int] = {10: 0, 500: 0}
        for _ in range(600):
            for rate in passed:
                quota = await limiter.admit(Client("alice", rate_per_minute=rate))
                passed[rate] += quota is not None and quota.granted
            clock.now += 0.05
        # What one of them lets through counts for the other.
        assert passed[10] == 5
        assert 480 <= sum(passed.values()) <= 500

    run(test())


def test_what_is_left_is_told(clock: Clock) -> None:
    async def test() -> None:
        [limiter] = limiters(Server(clock), 1, limit=3)
        told = [await limiter.admit(ALICE) for _ in range(4)]
        assert told[-1] == Quota(3, 0, 60, granted=False)
        assert [quota.remaining for quota in told[:3] if quota] == [2, 1, 0]
        clock.now += 61
        assert (await limiter.admit(ALICE)) == Quota(3, 2, 60)

    run(test())


@pytest.mark.parametrize("server", [True, False])
def test_decisions_are_counted_and_who_is_refused(clock: Clock, server: bool) -> None:
    async def test() -> None:
        [limiter] = limiters(Server(clock) if server else None, 1, limit=3)
        for _ in range(5):
            await limiter.admit(ALICE)
        await limiter.admit(Client("free", rate_per_minute=0))
        metrics = limiter._metrics
        decided = {values[0]: series.value for values, series in metrics.rate_limit_decisions.series.items()}
        let_through = {"admitted": 3, "local": 0} if server else {"admitted": 0, "local": 3}
        assert decided == {**let_through, "refused": 2}
        assert {values: series.value for values, series in metrics.rate_limited.series.items()} == {
            ("alice",): 2
        }

    run(test())


@pytest.mark.parametrize("split", [1, 2])
def test_nats_lost_in_the_middle_changes_little(clock: Clock, split: int) -> None:
    async def test() -> None:
        server = Server(clock)
        targets = limiters(server, 2)
        used = targets[:split]
        passed = await send(clock, used, 20, 30)
        server.up = False
        passed += await send(clock, used, 20, 30)
        assert 980 <= len(passed) <= 1020
        # And on: each minute again, whether it comes back or not.
        passed += await send(clock, used, 20, 60)
        server.up = True
        passed += await send(clock, used, 20, 120)
        assert most_in_a_minute(passed) <= 1020
        # What passed without NATS counts for one more minute when it is back.
        assert len(passed) >= 980 * 3

    run(test())


@pytest.mark.parametrize("lost", [False, True])
def test_what_passed_while_nats_was_away_is_counted_when_it_is_back(clock: Clock, lost: bool) -> None:
    async def test() -> None:
        server = Server(clock)
        targets = limiters(server, 2)
        passed = await send(clock, targets, 100, 2)
        server.up = False
        passed += await send(clock, targets, 100, 4)
        server.up = True
        if lost:
            server.log.clear()
            server.epoch += 1
        passed += await send(clock, targets, 100, 10)
        assert 980 <= len(passed) <= 1020

    run(test())


def test_a_client_that_nobody_knew_gets_an_equal_part_without_nats(clock: Clock) -> None:
    async def test() -> None:
        server = Server(clock)
        server.up = False
        targets = limiters(server, 4)
        assert len(await send(clock, targets[:1], 100, 10)) == 250
        assert len(await send(clock, targets, 100, 20)) == 750

    run(test())


def test_failed_authentications_are_limited_per_address(clock: Clock) -> None:
    [limiter] = limiters(None, 1, limit=10)
    told = [limiter.failed("10.0.0.1") for _ in range(12)]
    assert [quota.granted for quota in told if quota] == [True] * 10 + [False] * 2
    other = limiter.failed("10.0.0.2")
    assert other is not None
    assert other.granted
    clock.now += 61
    again = limiter.failed("10.0.0.1")
    assert again is not None
    assert again.granted


def test_a_host_with_many_addresses_is_one_that_fails(clock: Clock) -> None:
    [limiter] = limiters(None, 1, limit=10)

    def granted(*addresses: str) -> list[bool]:
        return [quota.granted for address in addresses if (quota := limiter.failed(address))]

    assert granted(*(f"2001:db8::{n:x}:1" for n in range(12))) == [True] * 10 + [False] * 2
    assert granted("2001:db8:0:1::1", "fe80::1%eth0") == [True, True]
    assert granted(*["192.0.2.1"] * 6, *["::ffff:192.0.2.1"] * 6) == [True] * 10 + [False] * 2


def test_addresses_and_clients_are_bounded(clock: Clock) -> None:
    async def test() -> None:
        [limiter] = limiters(None, 1)
        for number in range(20_000):
            limiter.failed(str(number))
            await limiter.admit(Client(str(number)))
            clock.now += 0.01
        assert len(limiter._failures) <= 10_000
        assert len(limiter._accounts) <= 11_000

    run(test())


def test_the_window_counts_what_a_list_of_times_counts() -> None:
    shuffled = random.Random(7)
    window, times = SlidingWindow(), []
    for now in accumulate(shuffled.choice([0.01, 0.5, 3.0, 20.0, 90.0]) for _ in range(2000)):
        window.add(now)
        times.append(now)
        exact = sum(at > now - 60 for at in times)
        to_the_second = sum(int(at) >= int(now) - 60 for at in times)
        assert exact <= window.total == to_the_second


def test_the_window_says_when_it_has_room() -> None:
    window = SlidingWindow()
    window.add(100.9)
    window.add(130.0)
    wait = window.wait(140.0)
    window.forget(140.0 + wait)
    assert (wait, window.total) == (21, 1)
