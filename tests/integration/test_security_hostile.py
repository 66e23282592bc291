"""Clients that mean no good, against one API process: it refuses, stays small, and serves others."""

import gzip
import json
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.integration.serving import Api, make_key, serving

MIB = 1 << 20
MOST_GROWTH = 50 * MIB
HEADER_TIMEOUT_S = 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def key(folder: Path) -> dict[str, str]:
    return make_key(folder, "someone")


@pytest.fixture(scope="module")
def api(folder: Path) -> Iterator[Api]:
    """One with little patience for headers, and few connections; the rate limit is off."""
    settings = {"MAX_CONNECTIONS": "700", "RATE_LIMIT_PER_MINUTE": "0"}
    settings["HEADER_TIMEOUT_S"] = str(HEADER_TIMEOUT_S)
    with serving(folder, **settings) as running:
        httpx.get(running.url)
        yield running


def connect(api: Api) -> socket.socket:
    url = httpx.URL(api.url)
    assert url.port
    return socket.create_connection((url.host, url.port), timeout=20)


@pytest.fixture(scope="module", autouse=True)
def trickle(api: Api, key: dict[str, str]) -> Iterator[socket.socket]:
    """A body that began with the first test and never comes; it takes its time to be refused."""
    with connect(api) as connection:
        head = "POST /inference HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n"
        connection.sendall(f"{head}X-API-Key: {key['X-API-Key']}\r\n\r\n[".encode())
        yield connection


def read_all(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    received = b""
    try:
        while chunk := connection.recv(65536):
            received += chunk
    except ConnectionResetError:
        pass
    return received


def growth(api: Api, key: dict[str, str], content: bytes | Iterable[bytes], **headers: str) -> httpx.Response:
    """The answer to a body, after which the process had never grown by much."""
    before = api.peak()
    answer = httpx.post(f"{api.url}/inference", content=content, headers={**key, **headers}, timeout=60)
    assert api.peak() - before < MOST_GROWTH
    assert httpx.get(f"{api.url}/", headers=key).status_code == 200
    return answer


def test_a_gigabyte_in_chunks(api: Api, key: dict[str, str]) -> None:
    def gigabyte() -> Iterator[bytes]:
        for _ in range(1024):
            yield bytes(MIB)

    before = api.peak()
    try:
        answer = httpx.post(f"{api.url}/inference", content=gigabyte(), headers=key, timeout=60)
    except httpx.TransportError:
        # The connection was closed while we sent; what was answered is asked for in test_hostile.py.
        pass
    else:
        assert answer.status_code == 413
    assert api.peak() - before < MOST_GROWTH
    assert httpx.get(f"{api.url}/", headers=key).status_code == 200


def test_a_gigabyte_that_is_announced(api: Api, key: dict[str, str]) -> None:
    with connect(api) as connection:
        head = f"POST /inference HTTP/1.1\r\nHost: x\r\nContent-Length: {1 << 30}\r\n"
        connection.sendall(f"{head}X-API-Key: {key['X-API-Key']}\r\n\r\n".encode())
        assert read_all(connection).startswith(b"HTTP/1.1 413 ")


def test_a_body_that_is_announced_too_large_and_sent_all_the_same(api: Api, key: dict[str, str]) -> None:
    size = 70 * MIB
    with connect(api) as connection:
        head = f"POST /inference HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n"
        with suppress(ConnectionError):
            connection.sendall(f"{head}X-API-Key: {key['X-API-Key']}\r\n\r\n".encode() + bytes(size))
        assert read_all(connection).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("path", "status"),
    [("/v1/models/none:predict", b"503"), ("/v2/models/none/infer", b"503"), ("/none", b"404")],
)
def test_a_large_body_that_is_answered_before_it_is_read(
    api: Api, key: dict[str, str], path: str, status: bytes
) -> None:
    """By a client that sends all before it reads; its next request goes over the same connection."""
    size = 30 * MIB
    with connect(api) as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n"
        connection.sendall(f"{head}X-API-Key: {key['X-API-Key']}\r\n\r\n".encode() + bytes(size))
        answer = connection.makefile("rb")
        assert answer.readline().split()[1] == status
        connection.sendall(b"GET /none HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b"HTTP/1.1 401 " in answer.read()


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, identity", "x" * 1000])
def test_a_compressed_body_is_never_unpacked(api: Api, key: dict[str, str], encoding: str) -> None:
    bomb = gzip.compress(bytes(200 * MIB))
    answer = growth(api, key, bomb, **{"Content-Encoding": encoding})
    assert answer.status_code == 415
    assert answer.json()["error"]["code"] == "unsupported_encoding"


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"[" * 4_000_000, 413, "payload_too_large"),
        (b"[" * 900_000 + b"]" * 900_000, 400, "invalid_input"),
        (b'{"a":' * 900_000, 400, "invalid_input"),
        (b'{"model_id": "' + rb"\"[[[[" * 200_000 + b'", "input_data": ' + b"[" * 65, 400, "invalid_input"),
        (b"[" + b"[]," * 4_000_000, 413, "payload_too_large"),
        (b"[" + b"0," * 20_000_001, 413, "payload_too_large"),
    ],
)
def test_json_that_unpacks_to_more_than_it_is(
    api: Api, key: dict[str, str], content: bytes, status: int, code: str
) -> None:
    before = api.peak()
    answer = httpx.post(f"{api.url}/inference", content=content, headers=key, timeout=60)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert api.peak() - before < MOST_GROWTH + len(content)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 40_000 + b"\r\n\r\n",
        b"GET /health HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(10_000)) + b"\r\n",
        b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\n\r\n",
        # Without an end.
        b"GET /health HTTP/1.1\r\nX: " + b"x" * 100_000,
    ],
)
def test_headers_without_end(api: Api, head: bytes) -> None:
    with connect(api) as connection:
        connection.sendall(head)
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 431 "), answer[:200]
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "headers_too_large"


def test_five_hundred_slow_clients_do_not_hold_up_others(api: Api, key: dict[str, str]) -> None:
    # To make a client takes longer than what is asked for with it.
    others = httpx.Client(headers=key, limits=httpx.Limits(max_keepalive_connections=0))
    slow = [connect(api) for _ in range(500)]
    try:
        for connection in slow:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        took_s = 0.0
        for _ in range(20):
            answer = others.get(f"{api.url}/", timeout=2)
            assert answer.status_code == 200
            took_s += answer.elapsed.total_seconds()
            for connection in slow[::10]:
                connection.sendall(b"x")
        assert took_s < 2
        # After the time for headers they are told so, and hung up on.
        assert b"HTTP/1.1 408 " in read_all(slow[1])
    finally:
        others.close()
        for connection in slow:
            connection.close()


def test_a_connection_that_says_nothing_is_closed(api: Api) -> None:
    with connect(api) as connection:
        started = time.monotonic()
        assert read_all(connection) == b""
        assert HEADER_TIMEOUT_S - 0.5 < time.monotonic() - started < 10


def test_more_connections_than_allowed_are_told_so(api: Api, key: dict[str, str]) -> None:
    many = [connect(api) for _ in range(701)]
    try:
        answers = [read_all(many[-1])]
        assert answers[0].startswith(b"HTTP/1.1 503 ")
        assert b"too many connections" in answers[0]
        assert b"\r\nretry-after: 1\r\n" in answers[0]
    finally:
        for connection in many:
            connection.close()


def test_a_body_that_trickles(trickle: socket.socket) -> None:
    answer = read_all(trickle)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "request_timeout"


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "PROPFIND", "get", "GETT"])
def test_methods_that_nobody_offers(api: Api, key: dict[str, str], method: str) -> None:
    with connect(api) as connection:
        head = f"{method} /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        connection.sendall(f"{head}X-API-Key: {key['X-API-Key']}\r\n\r\n".encode())
        answer = read_all(connection)
    assert answer.split()[1] in (b"400", b"404", b"405"), answer[:200]


def test_nothing_of_all_this_broke_it(api: Api, key: dict[str, str]) -> None:
    assert httpx.get(f"{api.url}/", headers=key).status_code == 200
    assert "Traceback" not in api.log.read_text()
