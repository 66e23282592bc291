"""More clients than can be served, and clients that hang up; `make overload hangups` take longer over it."""

import json
import socket
from collections.abc import Iterator

import httpx
import pytest
import uvloop

from adapter.settings import Settings
from bench.hangups import hang_up
from bench.loads import write_img_model
from bench.overload import overload
from tests.integration.conftest import Up, eventually, make_repository, start_up
from tests.models.generate import write_count_model

CONNECTIONS = 1000
SECONDS = 6
REQUESTS = 2000


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """An `up` with so short a queue that a crowd is refused."""
    folder = tmp_path_factory.mktemp("overload")
    repository = make_repository(folder, "sklearn-iris")
    write_img_model(repository)
    write_count_model(repository / "count", folder / "executed")
    with start_up(folder, repository, ADAPTER_BATCH_QUEUE="64", ADAPTER_METADATA_TTL_S="60") as running:
        yield running


def test_a_crowd_is_served_or_told_to_come_back(own: Up) -> None:
    url = own.facts["url"] + "/v1/models/sklearn-iris:predict"
    headers = {"X-API-Key": own.facts["api_key"]}
    found = uvloop.run(overload(url, headers, own.pids("api"), CONNECTIONS, SECONDS))
    assert found.faults() == []
    assert found.statuses.keys() == {200, 503}
    # Nothing of it is left, and who comes alone is served.
    eventually(lambda: 'adapter_requests_in_flight{contract="v1"} 0.0\n' in own.ops.get("/metrics").text)
    assert own.predict("sklearn-iris", {"instances": [[5.1, 3.5, 1.4, 0.2]]}).status_code == 200


def test_clients_that_hang_up_leave_nothing_behind(own: Up) -> None:
    settings = Settings(
        triton_grpc_url=own.facts["triton_grpc"],
        nats_url=own.facts["nats_url"],
        state_dir=own.state_dir,
        rate_limit_per_minute=10**9,
    )
    found = uvloop.run(hang_up(settings, own.facts["api_key"], REQUESTS, 64))
    assert found.left == {}
    assert found.statuses.keys() == {200}


def test_who_hangs_up_while_he_waits_is_never_sent_to_triton(own: Up) -> None:
    url = httpx.URL(own.facts["url"])
    log = own.repository.parent / "executed"

    def send(value: int) -> socket.socket:
        """A request whose answer nobody reads yet, once it is where it waits."""
        body = json.dumps({"instances": [[value]]})
        head = f"POST /v1/models/count:predict HTTP/1.1\r\nHost: x\r\nX-API-Key: {own.facts['api_key']}\r\n"
        connection = socket.create_connection((url.host, url.port or 0))
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        assert own.client.get("/health").status_code == 200
        return connection

    # Each takes a second, and two calls of a model may be in flight.
    first = send(1_000_000_001)
    eventually(lambda: log.exists() and log.read_text() == "1000000001\n")
    second = send(1_000_000_002)
    send(7).close()
    assert own.client.get("/health").status_code == 200
    for connection in (first, second):
        assert connection.recv(12) == b"HTTP/1.1 200"
        connection.close()
    assert own.predict("count", {"instances": [[8]]}).json() == {"predictions": [[8]]}
    assert log.read_text() == "1000000001\n1000000002\n8\n"
