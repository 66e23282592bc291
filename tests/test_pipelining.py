"""Requests behind one that is being answered: nothing of theirs is taken for its answer."""

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event

import pytest
from starlette.types import Receive, Scope, Send

from adapter import patience
from adapter.listener import QuietServer
from adapter.protocol import MOST_WAITING
from adapter.settings import Settings
from tests.integration.serving import wait_for
from tests.quiet import quiet_server


class Application:
    """Answers a path with it; `/later` once it is told to, and `/held` so when it has read the body."""

    def __init__(self) -> None:
        self.go_on = Event()
        self.began: list[str] = []
        self.refused: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path = scope["path"]
        self.began.append(path)
        while path != "/later" and (await receive()).get("more_body"):
            pass
        if path in ("/later", "/held"):
            await asyncio.to_thread(self.go_on.wait)
        body = path.encode()
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@pytest.fixture
def application() -> Application:
    return Application()


@contextmanager
def connected(
    application: Application, header_timeout_s: float = 10
) -> Iterator[tuple[QuietServer, socket.socket]]:
    settings = Settings(header_timeout_s=header_timeout_s)
    with (
        quiet_server(application, settings, application.refused.append) as (served, address),
        socket.create_connection(address, timeout=20) as client,
    ):
        try:
            yield served, client
        finally:
            application.go_on.set()


def get(path: str, *lines: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: x", *lines, "", ""]).encode()


def read_answers(client: socket.socket) -> list[tuple[int, str]]:
    """Status and body of each, up to the end of the connection."""
    received = b""
    while piece := client.recv(4096):
        received += piece
    answers = []
    for answer in received.decode().split("HTTP/1.1 ")[1:]:
        head, _, body = answer.partition("\r\n\r\n")
        answers.append((int(head[:3]), body))
    return answers


OVERSIZED = get("/2", "X: " + "x" * 40_000)
LAST = get("/3", "Connection: close")
CHUNKED = get("/2", "Transfer-Encoding: chunked")

MALFORMED = [
    pytest.param(b"nonsense\r\n\r\n", 400, "malformed_request", id="malformed"),
    pytest.param(get("http://["), 400, "malformed_request", id="wrong URL"),
    pytest.param(CHUNKED + b"nonsense\r\n", 400, "malformed_request", id="wrong body"),
]
TOO_LARGE = [
    pytest.param(OVERSIZED, 431, "headers_too_large", id="too large"),
    pytest.param(OVERSIZED[:-4], 431, "headers_too_large", id="too large without end"),
]
UNFINISHED = [pytest.param(get("/2")[:-2], 408, "request_timeout", id="unfinished")]


@pytest.mark.parametrize("path", ["/later", "/held"])
@pytest.mark.parametrize(("behind", "status", "code"), MALFORMED + TOO_LARGE + UNFINISHED)
def test_what_is_refused_is_refused_in_its_turn(
    application: Application, path: str, behind: bytes, status: int, code: str
) -> None:
    with connected(application, header_timeout_s=1) as (_, client):
        client.sendall(get(path))
        wait_for(lambda: application.began)
        client.sendall(behind)
        wait_for(lambda: application.refused)
        application.go_on.set()
        first, second = read_answers(client)
    assert first == (200, path)
    assert (second[0], code in second[1]) == (status, True)
    assert (application.began, application.refused) == ([path], [code])


@pytest.mark.parametrize("others", [[], ["/1"], ["/1", "/11"]], ids=len)
@pytest.mark.parametrize(("behind", "status", "code"), MALFORMED + UNFINISHED)
def test_all_that_came_with_it_is_answered_first(
    application: Application, others: list[str], behind: bytes, status: int, code: str
) -> None:
    paths = ["/held", *others]
    with connected(application, header_timeout_s=1) as (_, client):
        client.sendall(b"".join(map(get, paths)) + behind)
        wait_for(lambda: application.refused)
        application.go_on.set()
        *answers, last = read_answers(client)
    assert answers == [(200, path) for path in paths]
    assert (last[0], code in last[1]) == (status, True)
    assert (application.began, application.refused) == (paths, [code])


@pytest.mark.parametrize(("behind", "status", "code"), MALFORMED + TOO_LARGE[:1])
def test_what_follows_never_runs(application: Application, behind: bytes, status: int, code: str) -> None:
    with connected(application) as (_, client):
        client.sendall(behind + get("/never"))
        [answer] = read_answers(client)
    assert (answer[0], code in answer[1]) == (status, True)
    assert "/never" not in application.began
    assert application.refused == [code]


def test_behind_the_last_request_nothing_is_refused(application: Application) -> None:
    with connected(application) as (_, client):
        client.sendall(LAST + b"nonsense\r\n\r\n")
        assert read_answers(client) == [(200, "/3")]


def test_when_the_client_hangs_up_nothing_more_begins(
    application: Application, caplog: pytest.LogCaptureFixture
) -> None:
    with connected(application) as (served, client):
        client.sendall(get("/held") + get("/2"))
        wait_for(lambda: application.began)
        client.close()
        wait_for(lambda: not served.server_state.connections)
        application.go_on.set()
    assert application.began == ["/held"]
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("begun", "rest"),
    [(LAST[:20], LAST[20:]), (LAST[:-2] + b"Content-Length: 5\r\n\r\nab", b"cde")],
    ids=["headers", "body"],
)
def test_time_in_which_nothing_is_read_is_not_the_clients(
    application: Application, begun: bytes, rest: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "GRACE_S", 1.0)
    monkeypatch.setattr(patience, "_LOOK_EVERY_S", 0.1)
    with connected(application, header_timeout_s=1) as (_, client):
        client.sendall(get("/later") + get("/2") + begun)
        # Twice as long as the rest may take, and then less than that.
        time.sleep(2)
        application.go_on.set()
        time.sleep(0.3)
        client.sendall(rest)
        assert read_answers(client) == [(200, "/later"), (200, "/2"), (200, "/3")]
    assert application.refused == []


def test_so_many_requests_may_wait_and_no_more(application: Application) -> None:
    with connected(application) as (_, client):
        client.sendall(get("/held") + get("/1") * 10_000)
        wait_for(lambda: application.refused)
        application.go_on.set()
        *answers, last = read_answers(client)
    assert answers == [(200, "/held"), *[(200, "/1")] * MOST_WAITING]
    assert (last[0], "more than 100 requests wait on this connection" in last[1]) == (429, True)
    assert application.refused == ["rate_limited"]
