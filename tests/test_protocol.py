"""A client that does not read what it asked for, and one that takes its time: in plain text, and over TLS."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from starlette.types import Receive, Scope, Send

from adapter import listener, patience
from adapter.listener import QuietServer
from adapter.settings import Settings
from tests.integration.certificates import Files
from tests.integration.serving import wait_for
from tests.quiet import quiet_server

SIZE = 64 << 20


async def large(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers more than the kernel holds for a client that does not read."""
    if scope["type"] == "http":
        headers = [(b"content-length", b"%d" % SIZE)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": bytes(SIZE)})


@pytest.fixture(params=["plain text", "TLS"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files | None:
    return Files(tmp_path) if request.param == "TLS" else None


@contextmanager
def asked(files: Files | None, header: str) -> Iterator[tuple[QuietServer, socket.socket]]:
    """A server, and a client that has sent its request."""
    settings = Settings(tls_cert_file=files.certificate, tls_key_file=files.key) if files else Settings()
    with quiet_server(large, settings) as (served, address), ExitStack() as stack:
        client = stack.enter_context(socket.create_connection(address, timeout=20))
        if files:
            client = stack.enter_context(files.trust().wrap_socket(client, server_hostname="localhost"))
        client.sendall(f"GET / HTTP/1.1\r\nHost: x\r\nConnection: {header}\r\n\r\n".encode())
        yield served, client


def read(client: socket.socket, most: int) -> int:
    """Up to so many bytes; fewer at the end of the connection."""
    received = 0
    while received < most and (chunk := client.recv(min(1 << 20, most - received))):
        received += len(chunk)
    return received


def read_within(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    for module in (listener, patience):
        monkeypatch.setattr(module, "READ_WITHIN_S", seconds)


def test_an_answer_that_is_not_taken_ends_the_connection(
    files: Files | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_within(monkeypatch, 0.5)
    began = time.monotonic()
    with asked(files, "keep-alive") as (served, client):
        wait_for(lambda: served.server_state.connections)
        wait_for(lambda: not served.server_state.connections, within_s=4)
        assert time.monotonic() - began >= 0.5
        # What the kernel held is all that there is.
        assert read(client, SIZE) < SIZE


def test_an_answer_that_is_taken_slowly_is_taken_whole(
    files: Files | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_within(monkeypatch, 1)
    with asked(files, "close") as (_, client):
        head = client.recv(1)
        while not head.endswith(b"\r\n\r\n"):
            head += client.recv(1)
        received = 0
        for _ in range(20):
            received += read(client, 500_000)
            time.sleep(0.1)
        assert received == 10_000_000
        assert read(client, SIZE - received) == SIZE - received
