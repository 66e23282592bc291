"""Answers to bodies that the application does not read: nothing hangs, and nothing is read without end."""

import asyncio
import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from adapter import patience, protocol
from adapter.listener import QuietServer
from adapter.protocol import MOST_UNREAD_BYTES
from adapter.settings import Settings
from tests.integration.certificates import Files
from tests.integration.serving import wait_for
from tests.quiet import quiet_server

LARGE = 30 << 20
MOST = 40 << 20
KEPT_S = 1
NOT_FOUND = b"HTTP/1.1 404 "


class Application:
    """Answers 404, `/later` once it is told to, and reads no body; it hangs up after `/last`."""

    def __init__(self) -> None:
        self.go_on = Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] == "/later":
            await asyncio.to_thread(self.go_on.wait)
        headers = [(b"content-length", b"2")]
        if scope["path"] == "/last":
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": 404, "headers": headers})
        await send({"type": "http.response.body", "body": b"no"})


@contextmanager
def connected(
    application: Application, files: Files | None = None
) -> Iterator[tuple[QuietServer, socket.socket, list[str]]]:
    """A server that keeps a connection a second, a connection to it, and what the server refuses."""
    settings = Settings(max_body_bytes=MOST, header_timeout_s=2)
    if files:
        settings = settings.model_copy(update={"tls_cert_file": files.certificate, "tls_key_file": files.key})
    refused: list[str] = []
    with quiet_server(application, settings, refused.append) as (served, address), ExitStack() as stack:
        served.config.timeout_keep_alive = KEPT_S
        client = stack.enter_context(socket.create_connection(address, timeout=20))
        if files:
            client = stack.enter_context(files.trust().wrap_socket(client, server_hostname="localhost"))
        yield served, client, refused


def post(path: str, size: int) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode()


def read_answer(client: socket.socket) -> bytes:
    answer = b""
    while not answer.endswith(b"\r\n\r\nno"):
        piece = client.recv(4096)
        assert piece, answer
        answer += piece
    return answer


def read_to_end(client: socket.socket) -> bytes:
    received = b""
    while piece := client.recv(4096):
        received += piece
    return received


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain text", "TLS"])
def test_a_client_that_sends_all_before_it_reads(encrypted: bool, tmp_path: Path) -> None:
    """The server has stopped reading by the time that the answer is made."""
    application = Application()
    with connected(application, Files(tmp_path) if encrypted else None) as (served, client, refused):
        client.sendall(post("/later", LARGE) + bytes(2 * MOST_UNREAD_BYTES))
        connections: set[Any] = served.server_state.connections
        wait_for(lambda: any(connection.flow.read_paused for connection in connections))
        application.go_on.set()
        client.sendall(bytes(LARGE - 2 * MOST_UNREAD_BYTES))
        assert read_answer(client).startswith(NOT_FOUND)
        # The connection goes on, and ends when nothing more is asked.
        client.sendall(post("/", 3) + b"abc")
        assert read_answer(client).startswith(NOT_FOUND)
        assert read_to_end(client) == b""
    assert refused == []


def test_a_connection_idles_from_the_end_of_a_body_that_came_after_its_answer() -> None:
    with connected(Application()) as (_, client, _):
        client.sendall(post("/", 10) + b"12345")
        assert read_answer(client).startswith(NOT_FOUND)
        time.sleep(1.5 * KEPT_S)
        client.sendall(b"67890")
        ended = time.monotonic()
        assert read_to_end(client) == b""
        assert time.monotonic() - ended >= KEPT_S - 0.01


def test_a_body_without_end_is_read_up_to_the_limit() -> None:
    with connected(Application()) as (_, client, refused):
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert read_answer(client).startswith(NOT_FOUND)
        chunk = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
        client.sendall(chunk * (MOST >> 20))
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            client.sendall(chunk * (MOST >> 20))
    assert refused == ["payload_too_large"]


@pytest.mark.parametrize("body", [b"", b"x"])
def test_a_body_that_stops_coming_ends_the_connection_without_another_answer(
    body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "GRACE_S", -1000.0)
    with connected(Application()) as (_, client, refused):
        client.sendall(post("/", LARGE) + body)
        assert read_to_end(client).count(b"HTTP/1.1") == 1
    assert refused == ["request_timeout"]


def test_a_body_that_is_malformed_after_its_answer_gets_no_other() -> None:
    with connected(Application()) as (_, client, refused):
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert read_answer(client).startswith(NOT_FOUND)
        client.sendall(b"nonsense\r\n")
        assert read_to_end(client) == b""
    assert refused == ["malformed_request"]


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain text", "TLS"])
def test_a_client_that_is_hung_up_on_reads_the_answer_when_it_has_sent_all(
    encrypted: bool, tmp_path: Path
) -> None:
    with connected(Application(), Files(tmp_path) if encrypted else None) as (_, client, refused):
        client.sendall(post("/last", LARGE))
        select.select([client], [], [], 20)
        client.sendall(bytes(LARGE))
        assert read_to_end(client).startswith(NOT_FOUND)
    assert refused == []


def test_a_client_that_is_refused_reads_the_answer_when_it_has_sent_all() -> None:
    with connected(Application()) as (_, client, refused):
        client.sendall(b"GET / HTTP/1.1\r\nX: ")
        client.sendall(b"x" * LARGE)
        assert read_to_end(client).startswith(b"HTTP/1.1 431 ")
    assert refused == ["headers_too_large"]


def test_one_that_is_refused_while_it_is_not_read_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MOST_UNREAD_BYTES", 2)
    application = Application()
    with connected(application) as (_, client, refused):
        head = b"POST /later HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        client.sendall(head + b"3\r\nabc\r\nnonsense\r\n")
        client.sendall(bytes(LARGE))
        assert read_to_end(client).startswith(b"HTTP/1.1 400 ")
        application.go_on.set()
    assert refused == ["malformed_request"]


@pytest.mark.parametrize("begun", [post("/last", 1 << 40), b"nonsense\r\n\r\n"], ids=["answered", "refused"])
def test_of_a_client_that_sends_on_no_more_is_read_than_a_body_may_hold(begun: bytes) -> None:
    with connected(Application()) as (_, client, _):
        client.sendall(begun)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            client.sendall(bytes(3 * MOST))


@pytest.mark.parametrize("begun", [post("/last", LARGE), b"nonsense\r\n\r\n"], ids=["answered", "refused"])
def test_a_client_that_does_not_hang_up_is_hung_up_on(begun: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "END_WITHIN_S", 0.5)
    with connected(Application()) as (served, client, _):
        began = time.monotonic()
        client.sendall(begun)
        assert read_to_end(client).startswith(b"HTTP/1.1 4")
        wait_for(lambda: not served.server_state.connections)
        assert time.monotonic() - began >= 0.49


@pytest.mark.parametrize("size", [0, 3])
def test_a_request_that_came_whole_is_the_last_one_at_once(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "END_WITHIN_S", 1000)
    with connected(Application()) as (served, client, _):
        client.sendall(post("/last", size) + bytes(size))
        assert read_to_end(client).startswith(NOT_FOUND)
        wait_for(lambda: not served.server_state.connections)
