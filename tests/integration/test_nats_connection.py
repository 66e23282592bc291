"""When a process's connection to NATS is settled: its users are prepared, or there is nobody to reach."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI

from adapter import nats as nats_module
from adapter.app import Services
from adapter.core.types import Client
from adapter.nats import NatsConnection
from adapter.settings import Settings
from adapter.standalone.network import hold_port, port_of
from tests.integration.nats import Nats


@pytest.fixture
def refusing() -> Iterator[str]:
    """The URL of a port where nobody listens."""
    with hold_port() as holder:
        yield f"nats://127.0.0.1:{port_of(holder)}"


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for longer than any of these tests takes."""
    monkeypatch.setattr(nats_module, "_SETTLED_WITHIN_S", 3600)


class User:
    """Prepares itself when it is told to."""

    def __init__(self, urls: str) -> None:
        self.connection = NatsConnection(Settings(nats_url=urls))
        self.connection.use(self._prepare, lambda: None)
        self.preparing, self.may_go_on = asyncio.Event(), asyncio.Event()
        self.prepared = False

    async def _prepare(self) -> None:
        self.preparing.set()
        await self.may_go_on.wait()
        self.prepared = True


async def _work_without_end() -> None:
    await asyncio.Event().wait()


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("one_is_away", [False, True])
def test_it_is_settled_when_its_users_are_prepared(
    shared_nats: Nats, refusing: str, one_is_away: bool
) -> None:
    async def scenario() -> None:
        user = User(f"{refusing},{shared_nats.url}" if one_is_away else shared_nats.url)
        user.connection.work(_work_without_end)
        user.connection.open()
        settled = asyncio.create_task(user.connection.settled())
        await user.preparing.wait()
        assert not settled.done()
        user.may_go_on.set()
        await settled
        assert user.prepared
        await user.connection.close()

    asyncio.run(asyncio.wait_for(scenario(), 30))


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("servers", [1, 2])
def test_it_is_settled_when_nobody_is_there(refusing: str, servers: int) -> None:
    async def scenario() -> None:
        user = User(",".join([refusing] * servers))
        user.connection.open()
        await user.connection.settled()
        assert not user.preparing.is_set()
        await user.connection.close()

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_a_server_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_module, "_SETTLED_WITHIN_S", 0.1)

    async def scenario(port: int) -> None:
        user = User(f"nats://127.0.0.1:{port}")
        user.connection.open()
        await user.connection.settled()
        assert not user.preparing.is_set()
        await user.connection.close()

    with socket.create_server(("127.0.0.1", 0)) as silent:
        asyncio.run(asyncio.wait_for(scenario(port_of(silent)), 30))


@pytest.mark.usefixtures("patient")
def test_an_api_that_answers_takes_jobs_and_shares_the_rate_limit(shared_nats: Nats, tmp_path: Path) -> None:
    async def scenario() -> None:
        services = Services(Settings(nats_url=shared_nats.url, state_dir=tmp_path))
        async with services.lifespan(FastAPI()):
            await services.queue.ping()
            assert await services.limiter.admit(Client("first", frozenset()))
        decisions = services.metrics.rate_limit_decisions
        assert [decisions.labels(each).value for each in ("admitted", "local")] == [1, 0]

    asyncio.run(asyncio.wait_for(scenario(), 30))
