"""The rate limit over processes, with a real nats-server and without."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Self

import httpx
import pytest

from adapter.core.metrics import Metrics
from adapter.core.types import Client, Quota
from adapter.nats import NatsConnection
from adapter.security import counters
from adapter.security.ratelimit import SharedRateLimiter
from adapter.settings import Settings
from tests.integration.nats import server
from tests.integration.serving import SHARED, Api, Statuses, make_key, paced, serving, wait_for

LIMIT = 1000
EXACT = range(980, 1021)
"""1,000 within 2 %."""
QUARTER_S = 15
"""What a minute's requests come in: none leaves the window either, and NATS has less time to come back.

A whole minute is in security/test_ratelimit.py, on a clock of its own.
"""


class Pair:
    """Two API processes that share a nats-server and the keys."""

    def __init__(self, folder: Path, stack: ExitStack, **settings: str) -> None:
        folder.mkdir()
        self.folder = folder
        self.nats = stack.enter_context(server(folder))
        self.apis: list[Api] = [
            stack.enter_context(serving(folder, NATS_URL=self.nats.url, **settings)) for _ in range(2)
        ]
        for api in self.apis:
            wait_for(lambda api=api: api.says(SHARED))  # type: ignore[misc]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with ExitStack() as stack:
        yield Pair(tmp_path_factory.mktemp("rate") / "pair", stack)


def client() -> httpx.AsyncClient:
    # Who waits for one of its own connections does not wait for an answer.
    return httpx.AsyncClient(timeout=httpx.Timeout(10, pool=None), limits=httpx.Limits(max_connections=16))


async def burst(apis: list[Api], headers: dict[str, str], count: int) -> Statuses:
    """As many requests as fast as 16 connections carry them."""
    async with client() as http:
        statuses = Statuses(http, apis, headers)
        pending = iter(range(count))

        async def one_after_another() -> None:
            for number in pending:
                await statuses(number)

        await asyncio.gather(*(one_after_another() for _ in range(16)))
    return statuses


def test_a_burst_over_two_processes_lets_the_limit_through(pair: Pair) -> None:
    statuses = asyncio.run(burst(pair.apis, make_key(pair.folder, "burst"), 1200))
    assert statuses.counts.keys() == {200, 429}
    assert statuses.counts[200] in EXACT
    other = asyncio.run(burst(pair.apis, make_key(pair.folder, "other"), 100))
    assert other.counts == {200: 100}


def test_a_burst_on_one_process_is_counted_on_the_other(pair: Pair) -> None:
    headers = make_key(pair.folder, "moves")
    first = asyncio.run(burst(pair.apis[:1], headers, 700))
    second = asyncio.run(burst(pair.apis[1:], headers, 500))
    assert first.counts == {200: 700}
    assert 700 + second.counts[200] in EXACT


def test_a_key_may_have_its_own_rate(pair: Pair) -> None:
    statuses = asyncio.run(burst(pair.apis, make_key(pair.folder, "slow", rate=20), 60))
    assert statuses.counts == {200: 20, 429: 40}
    statuses = asyncio.run(burst(pair.apis, make_key(pair.folder, "free", rate=0), 1200))
    assert statuses.counts == {200: 1200}


def test_a_refusal_says_when_to_come_back(pair: Pair) -> None:
    headers = make_key(pair.folder, "told", rate=1)
    first = httpx.get(f"{pair.apis[0].url}/v1/models/x", headers=headers)
    assert first.headers["RateLimit-Policy"] == '"client";q=1;w=60'
    assert first.headers["X-RateLimit-Remaining"] == "0"
    answer = httpx.get(f"{pair.apis[1].url}/v1/models/x", headers=headers)
    assert answer.status_code == 429
    assert answer.json() == {"error": "more than 1 requests in a minute"}
    wait = int(answer.headers["Retry-After"])
    assert 50 <= wait <= 60
    assert answer.headers["RateLimit"] == f'"client";r=0;t={wait}'
    assert answer.headers["X-RateLimit-Reset"] == str(wait)
    answer = httpx.get(f"{pair.apis[1].url}/inference/x", headers=headers)
    assert answer.json() == {"error": {"code": "rate_limited", "message": "more than 1 requests in a minute"}}


def test_a_minute_of_1200_requests_lets_1000_through_and_so_when_nats_is_killed(
    pair: Pair, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        robbed = Pair(tmp_path / "robbed", stack)
        restarted = Pair(tmp_path / "restarted", stack)
        statuses = asyncio.run(_minute(pair, robbed, restarted))
    steady, other, without, again = statuses
    assert steady.counts.keys() == {200, 429}
    assert steady.counts[200] in EXACT
    assert other.counts == {200: 300}
    assert without.counts[200] in EXACT
    assert again.counts[200] in EXACT


async def _minute(pair: Pair, robbed: Pair, restarted: Pair) -> list[Statuses]:
    async with client() as http:
        runs = [Statuses(http, p.apis, make_key(p.folder, "steady")) for p in (pair, robbed, restarted)]
        other = Statuses(http, pair.apis, make_key(pair.folder, "bystander"))

        async def rob() -> None:
            await asyncio.sleep(QUARTER_S / 2)
            robbed.nats.kill()
            restarted.nats.kill()
            await asyncio.sleep(3)
            restarted.nats.start()

        async with asyncio.TaskGroup() as group:
            for run in runs:
                group.create_task(paced(1200, QUARTER_S, run))
            group.create_task(paced(300, QUARTER_S, other))
            group.create_task(rob())
    return [runs[0], other, *runs[1:]]


@pytest.mark.parametrize("ahead_s", [-3600, 0, 3600])
def test_the_window_is_natss_however_wrong_our_clock_is(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, ahead_s: float
) -> None:
    class Wrong(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return super().now(tz) + timedelta(seconds=ahead_s)

    monkeypatch.setattr(counters, "datetime", Wrong)

    async def test() -> list[Quota | None]:
        connection = NatsConnection(Settings(nats_url=pair.nats.url))
        limiter = SharedRateLimiter(20, Metrics(), counters.Counters(connection, 1))
        connection.open()
        await connection.settled()
        try:
            return [await limiter.admit(Client(f"wrong by {ahead_s}")) for _ in range(60)]
        finally:
            await limiter.close()
            await connection.close()

    told = [quota for quota in asyncio.run(test()) if quota]
    assert [quota.granted for quota in told] == [True] * 20 + [False] * 40
    assert all(50 <= quota.reset_s <= 60 for quota in told)
