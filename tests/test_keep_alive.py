"""Connections that wait for another request, and those that have waited long enough."""

import asyncio
import socket
import time
from collections.abc import Iterator

import pytest
from starlette.types import Receive, Scope, Send

from adapter.settings import Settings
from tests.quiet import quiet_server

KEPT_S = 1


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers its path, `/slow` after longer than a connection may idle."""
    if scope["type"] != "http":
        return
    if scope["path"] == "/slow":
        await asyncio.sleep(2 * KEPT_S)
    body = scope["path"].encode()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def client() -> Iterator[socket.socket]:
    with quiet_server(echo, Settings()) as (served, address):
        served.config.timeout_keep_alive = KEPT_S
        with socket.create_connection(address, timeout=20) as client:
            yield client


def ask(client: socket.socket, path: str) -> float:
    """A request and its answer; returns a time before the answer was made."""
    asked = time.monotonic()
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    answer = b""
    while not answer.endswith(b"\r\n\r\n" + path.encode()):
        piece = client.recv(4096)
        assert piece, "hung up"
        answer += piece
    return asked


def test_a_connection_is_kept_for_so_long_after_its_last_answer(client: socket.socket) -> None:
    ask(client, "/1")
    time.sleep(KEPT_S / 2)
    last = ask(client, "/2")
    assert client.recv(1) == b""
    assert time.monotonic() - last >= KEPT_S - 0.01


def test_a_request_that_takes_longer_is_answered(client: socket.socket) -> None:
    ask(client, "/quick")
    ask(client, "/slow")
    last = ask(client, "/quick")
    assert client.recv(1) == b""
    assert time.monotonic() - last >= KEPT_S - 0.01


def test_requests_that_come_at_once_are_answered_in_their_order(client: socket.socket) -> None:
    paths = ["/slow", "/2", "/3"]
    client.sendall(b"".join(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for path in paths))
    answers = b""
    while piece := client.recv(4096):
        answers += piece
    bodies = [part.partition(b"\r\n\r\n")[2] for part in answers.split(b"HTTP/1.1 200 OK")[1:]]
    assert bodies == [path.encode() for path in paths]


def test_blank_lines_keep_no_connection(client: socket.socket) -> None:
    ask(client, "/1")
    client.sendall(b"\r\n")
    assert client.recv(1) == b""
