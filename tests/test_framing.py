"""Where a request ends, and what belongs to it: a proxy in front must not see that otherwise."""

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from adapter.listener import QuietServer
from adapter.settings import Settings
from tests.integration.serving import wait_for
from tests.quiet import quiet_server

HOST = "Host: x\r\n"
POST = "POST / HTTP/1.1\r\n" + HOST
CHUNKED = POST + "Transfer-Encoding: chunked\r\n\r\n"
SMUGGLED = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = "GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
OFFER = "Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"


class Application:
    """Answers what it was asked: path, body, and the names of the headers once the body had come."""

    def __init__(self) -> None:
        self.began: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        self.began.append(scope["path"])
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        names = [name.decode() for name, _ in scope["headers"]]
        answer = json.dumps([scope["path"], body.decode(), names]).encode()
        headers = [(b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


@dataclass
class Server:
    """A server for all tests, with what it was asked by one of them."""

    served: QuietServer
    address: tuple[str, int]
    began: list[str]
    refused: list[str]

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=20)

    def ask(self, sent: str) -> str:
        """All that is answered until the connection ends."""
        with self.connect() as client:
            client.sendall(sent.encode("latin-1"))
            return read_to_end(client)


@pytest.fixture(scope="module")
def only_server() -> Iterator[Server]:
    application, refused = Application(), list[str]()
    with quiet_server(application, Settings(), refused.append) as (served, address):
        yield Server(served, address, application.began, refused)


@pytest.fixture
def server(only_server: Server) -> Server:
    only_server.began.clear()
    only_server.refused.clear()
    return only_server


def read_to_end(client: socket.socket) -> str:
    received = b""
    while piece := client.recv(1 << 16):
        received += piece
    return received.decode()


def answers(received: str) -> list[tuple[str, str]]:
    """The path and the body that each answer tells of."""
    bodies = [part.partition("\r\n\r\n")[2] for part in received.split("HTTP/1.1 200 OK")[1:]]
    return [(path, body) for path, body, _ in map(json.loads, bodies)]


@pytest.mark.parametrize(
    "sent",
    [
        POST + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        POST + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        POST + "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        POST + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        POST + "Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
        POST + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        POST + "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
        POST + "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        POST + "Content-Length: 3, 3\r\n\r\nabc",
        POST + "Content-Length: +3\r\n\r\nabc",
        POST + "Content-Length: -1\r\n\r\nabc",
        POST + "Content-Length: 0x3\r\n\r\nabc",
        POST + "Content-Length: 3 3\r\n\r\nabc",
        POST + f"Content-Length: {1 << 64}\r\n\r\nabc",
        POST + "X: y\nContent-Length: 3\r\n\r\nabc",
        POST + "X: y\rContent-Length: 3\r\n\r\nabc",
        POST + "X: y\0\r\nContent-Length: 3\r\n\r\nabc",
        POST + "Content-Length: 3\n\nabc",
        CHUNKED + "-1\r\nabc\r\n0\r\n\r\n",
        CHUNKED + "0x3\r\nabc\r\n0\r\n\r\n",
        CHUNKED + "3 \r\nabc\r\n0\r\n\r\n",
        CHUNKED + "3\nabc\r\n0\r\n\r\n",
        CHUNKED + "3\r\nabc\n0\r\n\r\n",
        CHUNKED + "3\r\nabc0\r\n\r\n",
        CHUNKED + "3;x\ny\r\nabc\r\n0\r\n\r\n",
        CHUNKED + f"{1 << 64:x}\r\nabc\r\n0\r\n\r\n",
        CHUNKED + "0\r\nContent-Length: 3\r\n\r\nabc",
        "CONNECT x:80 HTTP/1.1\r\n" + HOST + "\r\n",
        "CONNECT / HTTP/1.1\r\n" + HOST + "\r\n",
        "POST / HTTP/2.0\r\n" + HOST + "Content-Length: 0\r\n\r\n",
        "GET /\r\n\r\n",
    ],
)
def test_what_has_no_certain_end_is_refused(server: Server, sent: str) -> None:
    received = server.ask(sent + SMUGGLED)
    assert received.startswith("HTTP/1.1 400 ")
    assert received.count("HTTP/1.1") == 1
    assert "/smuggled" not in server.began
    assert server.refused == ["malformed_request"]


@pytest.mark.parametrize(
    "sent",
    [
        CHUNKED + "3;x=y\r\nabc\r\n0\r\n\r\n",
        CHUNKED + "003\r\nabc\r\n000\r\nX: y\r\n\r\n",
        POST + "Transfer-Encoding: cHuNkEd\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
        POST + "Content-Length: 003\r\n\r\nabc",
        "\r\n" + POST + "Content-Length: 3\r\n\r\nabc",
    ],
)
def test_what_has_one_is_read(server: Server, sent: str) -> None:
    assert answers(server.ask(sent + LAST)) == [("/", "abc"), ("/last", "")]


@pytest.mark.parametrize(
    ("version", "hosts", "status"),
    [
        ("1.1", [], 400),
        ("1.1", ["x", "x"], 400),
        ("1.1", ["x", "y"], 400),
        ("1.0", ["x", "y"], 400),
        ("1.1", ["a b"], 400),
        ("1.1", ["x/y"], 400),
        ("1.1", ["x@y"], 400),
        ("1.1", ["\xe9"], 400),
        ("1.0", [], 200),
        ("1.1", [""], 200),
        ("1.1", ["inference.example.com:8080"], 200),
        ("1.1", ["[::1]:8080"], 200),
        ("1.1", ["my_service-1"], 200),
    ],
)
def test_a_request_is_for_one_host(server: Server, version: str, hosts: list[str], status: int) -> None:
    lines = [f"GET / HTTP/{version}", "Connection: close", *(f"Host: {host}" for host in hosts), "", ""]
    assert server.ask("\r\n".join(lines)).startswith(f"HTTP/1.1 {status} ")


@pytest.mark.parametrize(
    ("target", "path"),
    [("http://x/a", "/a"), ("https://x/a?b", "/a"), ("http://x", "/"), ("http://x?b", "/")],
)
def test_a_target_may_be_a_whole_url(server: Server, target: str, path: str) -> None:
    assert answers(server.ask(LAST.replace("/last", target))) == [(path, "")]


def test_what_comes_behind_a_body_is_no_header(server: Server) -> None:
    """A proxy that takes a client's X-API-Key or X-Forwarded-For out does so with headers."""
    received = server.ask(CHUNKED + "3\r\nabc\r\n0\r\nX-API-Key: y\r\n\r\n" + LAST)
    first = json.loads(received.split("\r\n\r\n")[1].partition("HTTP/1.1")[0])
    assert first == ["/", "abc", ["host", "transfer-encoding"]]


@pytest.mark.parametrize(
    "begun",
    [CHUNKED + "3\r\nabc\r\n0\r\nX: ", CHUNKED + "3;x="],
    ids=["trailer", "extension"],
)
def test_what_comes_beside_a_body_is_bounded(server: Server, begun: str) -> None:
    with server.connect() as client:
        client.sendall(begun.encode() + b"x" * (1 << 20))
        assert read_to_end(client).startswith("HTTP/1.1 431 ")
    assert server.refused == ["headers_too_large"]


def test_only_http_1_1_is_told_to_go_on(server: Server) -> None:
    sent = POST + "Expect: 100-continue\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc"
    assert server.ask(sent).startswith("HTTP/1.1 100 ")
    assert server.ask(sent.replace("1.1", "1.0")).startswith("HTTP/1.1 200 ")


@pytest.mark.parametrize("before", ["", "Connection: Upgrade\r\nUpgr", "Connection: Upgrade\r\nUpgrade: h"])
def test_an_offer_of_another_protocol_in_pieces_makes_no_request_of_the_body(
    server: Server, before: str
) -> None:
    begun = (POST + before).encode()
    rest = f"{OFFER.removeprefix(before)}Content-Length: {len(SMUGGLED)}\r\n\r\n".encode()
    with server.connect() as client:
        client.sendall(begun)
        connections: set[Any] = server.served.server_state.connections
        wait_for(lambda: len(begun) in [each._head_bytes for each in connections])
        client.sendall(rest)
        wait_for(lambda: server.began)
        client.sendall((SMUGGLED + LAST).encode())
        assert answers(read_to_end(client)) == [("/", SMUGGLED), ("/last", "")]


def test_offers_of_another_protocol_behind_each_other_are_passed_over(server: Server) -> None:
    offered = POST + OFFER
    sized = f"{offered}Content-Length: {len(SMUGGLED)}\r\n\r\n{SMUGGLED}"
    chunked = f"{offered}Transfer-Encoding: chunked\r\n\r\n{len(SMUGGLED):x}\r\n{SMUGGLED}\r\n0\r\n\r\n"
    bare = f"{offered}\r\n"
    sent = sized + chunked + bare + sized
    bodies = [SMUGGLED, SMUGGLED, "", SMUGGLED]
    assert answers(server.ask(sent + LAST)) == [*(("/", body) for body in bodies), ("/last", "")]
