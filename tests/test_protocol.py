"""A client that does not read what it asked for, and one that takes its time."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.types import Receive, Scope, Send

from adapter import protocol
from adapter.listener import QuietServer, config
from adapter.settings import Settings
from adapter.sockets import listen

SIZE = 64 << 20


async def large(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers more than the kernel holds for a client that does not read."""
    if scope["type"] == "http":
        headers = [(b"content-length", b"%d" % SIZE)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": bytes(SIZE)})


@asynccontextmanager
async def asking() -> AsyncIterator[tuple[QuietServer, socket.socket]]:
    """A server, and a client that has sent its request."""
    served = QuietServer(config(large, Settings(), None, lambda _: None))
    with listen("127.0.0.1", 0, "") as listening, socket.socket() as client:
        serving = asyncio.create_task(served.serve(sockets=[listening]))
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, listening.getsockname())
        await loop.sock_sendall(client, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        try:
            yield served, client
        finally:
            client.close()
            served.should_exit = True
            await serving


async def read(client: socket.socket, most: int) -> int:
    """Up to so many bytes; fewer at the end of the connection."""
    received = 0
    while received < most:
        chunk = await asyncio.get_running_loop().sock_recv(client, min(1 << 20, most - received))
        if not chunk:
            break
        received += len(chunk)
    return received


def test_an_answer_that_is_not_taken_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "READ_WITHIN_S", 0.5)

    async def check() -> None:
        async with asking() as (served, client):
            began = asyncio.get_running_loop().time()
            async with asyncio.timeout(10):
                while not served.server_state.connections:  # noqa: ASYNC110 - nothing tells
                    await asyncio.sleep(0.01)
                while served.server_state.connections:  # noqa: ASYNC110 - nothing tells
                    await asyncio.sleep(0.01)
            assert asyncio.get_running_loop().time() - began >= 0.5
            # What the kernel held is all that there is.
            assert await read(client, SIZE) < SIZE

    asyncio.run(check())


def test_an_answer_that_is_taken_slowly_is_taken_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "READ_WITHIN_S", 1)

    async def check() -> None:
        async with asking() as (_, client):
            received = 0
            for _ in range(30):
                received += await read(client, 500_000)
                await asyncio.sleep(0.1)
            assert received == 15_000_000
            assert await read(client, SIZE - received) == SIZE - received

    asyncio.run(check())
