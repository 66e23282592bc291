"""What is told of a request whose client got no answer, or another one than the application's."""

import asyncio
import socket
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from threading import Event
from typing import Any

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from adapter.contracts.journal import Journal
from adapter.core.metrics import Metrics
from adapter.listener import QuietServer
from adapter.settings import Settings
from tests.integration.serving import wait_for
from tests.quiet import quiet_server

Lines = list[MutableMapping[str, Any]]


class Application:
    """Answers 404 when it is told to; `/read` when it has read the body, if that comes."""

    def __init__(self) -> None:
        self.began, self.go_on = Event(), Event()
        self.metrics = Metrics()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        self.began.set()
        more = scope["path"] == "/read"
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            more = message["more_body"]
        await asyncio.to_thread(self.go_on.wait)
        scope["state"]["error"] = "not_found"
        await PlainTextResponse("nothing here", 404)(scope, receive, send)

    def counted(self) -> dict[str, int]:
        """Requests by the code that they were counted with."""
        return {values[-1]: series.count for values, series in self.metrics.request_seconds.series.items()}

    def refused(self) -> dict[str, float]:
        """Refusals by their reason."""
        return {reason: each.value for (reason,), each in self.metrics.refusals.series.items() if each.value}


@pytest.fixture
def application() -> Application:
    return Application()


@contextmanager
def connected(application: Application) -> Iterator[tuple[QuietServer, socket.socket, Lines]]:
    """Its server, a connection to that, and the lines of its log."""
    outer = Journal(application, 1, application.metrics)
    with (
        capture_logs() as lines,
        quiet_server(outer, Settings(), application.metrics.refused) as (served, address),
        socket.create_connection(address, timeout=20) as client,
    ):
        try:
            yield served, client, lines
        finally:
            application.go_on.set()
    assert application.metrics.requests_in_flight.labels("miaas").value == 0


def chunked(path: str, name: str) -> bytes:
    """The beginning of a request, with a client's id."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nX-Request-ID: {name}\r\n"
    return f"{head}Transfer-Encoding: chunked\r\n\r\n".encode()


def read_to_end(client: socket.socket) -> bytes:
    received = b""
    while piece := client.recv(4096):
        received += piece
    return received


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("path", ["/read", "/later"])
def test_a_body_that_turns_out_malformed(application: Application, path: str, at_once: bool) -> None:
    with connected(application) as (_, client, lines):
        client.sendall(chunked(path, "mine") + (b"nonsense\r\n" if at_once else b""))
        if not at_once:
            application.began.wait(20)
            client.sendall(b"nonsense\r\n")
        answer = read_to_end(client)
        application.go_on.set()
        wait_for(application.counted)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"\r\nx-request-id: mine\r\n") == 1
    assert (application.counted(), application.refused()) == ({"400": 1}, {"malformed_request": 1})
    assert application.metrics.response_bytes.labels("miaas").value == 0
    assert [(line["event"], line["code"]) for line in lines] == [("request", 400)]


def test_a_client_that_hangs_up_before_its_answer(application: Application) -> None:
    with connected(application) as (served, client, lines):
        client.sendall(b"GET /later HTTP/1.1\r\nHost: x\r\n\r\n")
        application.began.wait(20)
        client.close()
        wait_for(lambda: not served.server_state.connections)
        application.go_on.set()
        wait_for(application.counted)
    assert (application.counted(), application.refused()) == ({"499": 1}, {})
    assert [(line["event"], line["code"], line["bytes_out"]) for line in lines] == [("request", 499, 0)]


def test_what_is_refused_behind_another_has_its_own_id(application: Application) -> None:
    with connected(application) as (_, client, lines):
        client.sendall(
            chunked("/read", "first") + b"0\r\n\r\n" + chunked("/read", "second") + b"nonsense\r\n"
        )
        wait_for(lambda: lines)
        application.go_on.set()
        answer = read_to_end(client)
    assert [answer.count(b"\r\nx-request-id: %b\r\n" % name) for name in (b"first", b"second")] == [1, 1]
    assert (application.counted(), application.refused()) == (
        {"404": 1},
        {"malformed_request": 1, "not_found": 1},
    )
    refused, request = lines
    assert (refused["event"], refused["request_id"], refused["code"]) == ("refused", "second", 400)
    assert (request["event"], request["code"]) == ("request", 404)
