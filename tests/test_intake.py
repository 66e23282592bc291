"""Large bodies that are read from the socket to where an application wants them."""

import asyncio
import socket
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from adapter.contracts.body import LARGE, read_body_into
from adapter.settings import Settings
from tests.integration.serving import wait_for
from tests.quiet import quiet_server

BODY = np.random.default_rng(0).bytes(3 * LARGE + 1)


class Application:
    """Reads bodies into memory of its own and answers them; tells how each was read."""

    def __init__(self) -> None:
        self.keeps = True
        self.go_on = Event()
        self.go_on.set()
        self.places: list[memoryview] = []
        self.lent: list[weakref.ref[Any]] = []
        self.in_place: list[bool] = []
        self.hung_up = 0

    def memory(self, size: int) -> memoryview:
        array = np.empty(size, np.uint8)
        self.lent.append(weakref.ref(array))
        if self.keeps:
            self.places.append(array.data)
        return array.data

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        await asyncio.to_thread(self.go_on.wait)
        try:
            body = await read_body_into(scope, receive, 1 << 30, self.memory)
        except ClientDisconnect:
            self.hung_up += 1
            return
        self.in_place.append(type(body) is memoryview)
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        half = len(body) // 2
        await send({"type": "http.response.body", "body": body[:half], "more_body": True})
        await send({"type": "http.response.body", "body": body[half:]})


@contextmanager
def serving(application: Application) -> Iterator[Callable[[], socket.socket]]:
    """A server of it, to which the function that it yields connects."""
    with quiet_server(application, Settings()) as (_, address), ExitStack() as stack:

        def connect() -> socket.socket:
            return stack.enter_context(socket.create_connection(address, timeout=20))

        yield connect


@pytest.fixture
def application() -> Application:
    return Application()


def head(size: int, *lines: str) -> bytes:
    return "\r\n".join(["POST / HTTP/1.1", "Host: x", f"Content-Length: {size}", *lines, "", ""]).encode()


def answer(client: socket.socket, size: int) -> bytes:
    """The body of the next answer, which must be of that size."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += client.recv(1)
    first, *lines = received.decode().lower().split("\r\n")
    assert first == "http/1.1 200 ok"
    assert f"content-length: {size}" in lines
    body = b""
    while len(body) < size and (chunk := client.recv(size - len(body))):
        body += chunk
    return body


@pytest.mark.parametrize("first", [0, 1, LARGE, len(BODY) - 1, len(BODY)])
def test_a_body_comes_whole_however_much_of_it_came_with_the_headers(
    application: Application, first: int
) -> None:
    with serving(application) as connect:
        client = connect()
        client.sendall(head(len(BODY)) + BODY[:first])
        for at in range(first, len(BODY), 100_000):
            client.sendall(BODY[at : at + 100_000])
        assert answer(client, len(BODY)) == BODY
    assert application.in_place == [True]
    assert application.places == [BODY]


def test_what_follows_a_body_is_the_next_request(application: Application) -> None:
    """One connection, on which the client waits for no answer."""
    with serving(application) as connect:
        client = connect()
        bodies = [BODY, b"small", BODY[:LARGE], b"", BODY]
        sending = Thread(target=lambda: client.sendall(b"".join(head(len(body)) + body for body in bodies)))
        sending.start()
        for body in bodies:
            assert answer(client, len(body)) == body
        sending.join()
        client.sendall(head(5) + b"again")
        assert answer(client, 5) == b"again"


def test_a_client_that_waits_for_the_word_is_told_to_go_on(application: Application) -> None:
    with serving(application) as connect:
        client = connect()
        client.sendall(head(len(BODY), "Expect: 100-continue"))
        go_on = b"HTTP/1.1 100 Continue\r\n\r\n"
        assert client.recv(len(go_on)) == go_on
        client.sendall(BODY)
        assert answer(client, len(BODY)) == BODY


def test_a_client_that_hangs_up_in_the_middle(application: Application) -> None:
    with serving(application) as connect:
        client = connect()
        client.sendall(head(len(BODY)) + BODY[: LARGE + 1])
        wait_for(lambda: application.places and application.places[0][LARGE] == BODY[LARGE])
        client.close()
        wait_for(lambda: application.hung_up == 1)
        other = connect()
        other.sendall(head(len(BODY)) + BODY)
        assert answer(other, len(BODY)) == BODY


def test_a_connection_that_idles_keeps_nothing_of_a_body(application: Application) -> None:
    application.keeps = False
    with serving(application) as connect:
        client = connect()
        client.sendall(head(len(BODY)) + BODY)
        assert answer(client, len(BODY)) == BODY
        wait_for(lambda: [lent() for lent in application.lent] == [None])
        client.sendall(head(5) + b"again")
        assert answer(client, 5) == b"again"


def test_a_body_that_stops_coming_is_refused(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapter.patience.GRACE_S", -1000.0)
    with serving(application) as connect:
        client = connect()
        client.sendall(head(len(BODY)) + BODY[:LARGE])
        assert client.makefile("rb").readline() == b"HTTP/1.1 408 Request Timeout\r\n"
        wait_for(lambda: application.hung_up == 1)


@pytest.mark.parametrize("late", [False, True], ids=["while it is read", "before it is read"])
def test_of_a_body_that_was_refused_nothing_more_is_put_in_its_place(
    application: Application, late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The memory may be another request's by then."""
    monkeypatch.setattr("adapter.patience.GRACE_S", -1000.0)
    if late:
        application.go_on.clear()
    with (
        quiet_server(application, Settings()) as (served, address),
        socket.create_connection(address, timeout=20) as client,
    ):
        client.sendall(head(len(BODY)) + BODY[:LARGE])
        assert client.makefile("rb").readline() == b"HTTP/1.1 408 Request Timeout\r\n"
        application.go_on.set()
        wait_for(lambda: application.hung_up == 1)
        [place] = application.places
        before = bytes(place)
        client.sendall(BODY[LARGE:])
        client.shutdown(socket.SHUT_WR)
        wait_for(lambda: not served.server_state.connections)
        assert bytes(place) == before


def test_small_bodies_and_those_without_a_size_are_read_as_ever(application: Application) -> None:
    with serving(application) as connect:
        client = connect()
        client.sendall(head(LARGE - 1) + BODY[: LARGE - 1])
        assert answer(client, LARGE - 1) == BODY[: LARGE - 1]
        chunked = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        client.sendall(chunked + b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY))
        assert answer(client, len(BODY)) == BODY
    assert application.in_place == [False, False]
    assert application.places == []
