"""What a `serve` tells of what it did when it was asked to stop."""

import asyncio
import signal
import socket
from pathlib import Path

import httpx
import orjson
import pytest

from adapter.core.metrics import Metrics
from adapter.processes import Processes
from tests.integration.otlp import Receiver, grpc_server
from tests.integration.serving import make_key, serving, wait_for
from tests.integration.test_metrics import Scrape

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def test_its_last_request_is_counted_traced_and_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is one whose body never ends, so that it is cut off."""
    receiver, folder = Receiver(), tmp_path / "metrics"
    settings = {"METRICS_DIR": str(folder), "SHUTDOWN_TIMEOUT_S": "1", "LOG_FORMAT": "json"}
    with grpc_server(receiver) as port:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        key = make_key(tmp_path, "alice")["X-API-Key"]
        with (
            serving(tmp_path, **settings) as api,
            socket.create_connection(("127.0.0.1", httpx.URL(api.url).port or 0)) as client,
        ):
            head = f"POST /inference HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\nContent-Length: 9\r\n"
            client.sendall(f"{head}traceparent: 00-{TRACE}-00f067aa0ba902b7-01\r\n\r\n[".encode())
            wait_for(lambda: Scrape(api.ops_url).one("adapter_requests_in_flight", contract="miaas") == 1)
            api.process.send_signal(signal.SIGTERM)
            assert api.process.wait(15) == 0
        assert [span.name for span in receiver.of(TRACE)] == ["POST /inference"]
    lines = [orjson.loads(line) for line in api.log.read_text().splitlines()]
    [line] = [line for line in lines if line["event"] == "request"]
    assert (line["trace_id"], line["code"]) == (TRACE, 500)
    # Whoever takes its place goes on from there, and knows that it did not die.
    metrics = Metrics()
    asyncio.run(Processes(metrics, "serve", folder).close())
    assert metrics.request_seconds.labels("miaas", "", "", "500").count == 1
    assert metrics.process_restarts.labels("serve").value == 0
