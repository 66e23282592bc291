"""Tracing with a collector that is away, slow or refuses, and with none."""

import asyncio
import re
import secrets
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import nats

from adapter.jobs.messages import result_subject
from adapter.standalone.network import hold_port, port_of
from tests.integration.conftest import Up, eventually, start_serve
from tests.integration.otlp import Receiver, grpc_server
from tests.integration.tracing import CALLER, IRIS


def test_without_a_collector_a_jobs_message_still_carries_the_clients_trace(up: Up) -> None:
    traceparent = f"00-{secrets.token_hex(16)}-{CALLER}-01"
    headers = {"traceparent": traceparent, "tracestate": "vendor=x", "X-Request-ID": "the-id"}
    body = {"model_id": "sklearn-iris", "input_data": IRIS}
    job = up.client.post("/inference", json=body, headers=headers).json()["request_id"]
    up.result(job)

    async def stored() -> dict[str, str]:
        connection = await nats.connect(up.facts["nats_url"])
        found = await connection.jetstream().get_last_msg("MIAAS_RESULTS", result_subject("up", job))
        await connection.close()
        return found.headers or {}

    found = asyncio.run(stored())
    assert {name: found[name] for name in headers} == headers


class Refusing(Receiver):
    """Refuses as many batches, before it takes any."""

    def __init__(self, batches: int) -> None:
        super().__init__()
        self.left = batches

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
        if self.left:
            self.left -= 1
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not yet")
        return super().Export(request, context)


def test_a_dead_collector_is_said_once_and_costs_no_request(up: Up, tmp_path: Path) -> None:
    receiver = Refusing(10)
    # Held, or another program may be given it while nobody listens there.
    holder = hold_port()
    port = port_of(holder)
    settings = {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "0.3",
        "OTEL_BSP_SCHEDULE_DELAY": "20",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "1",
    }
    log = tmp_path / "serve.log"
    with holder, start_serve(up, tmp_path, **settings) as client:
        for _ in range(5):
            assert client.post("/v1/models/sklearn-iris:predict", json=IRIS).status_code == 200
        eventually(lambda: "spans cannot be exported" in log.read_text())
        with grpc_server(receiver, port):

            def exported() -> bool:
                client.get("/v1/models")
                return "spans are exported again" in log.read_text()

            eventually(exported)
            eventually(lambda: any(span.name == "GET /v1/models" for span in receiver.spans))
    told = log.read_text()
    assert "opentelemetry" not in told
    place = f"collector=127.0.0.1:{port}"
    # Where time is short the collector may be too late once more; that is told again.
    away, _, back = told.partition("[info] spans are exported again ")
    assert away.count(f"[warning] spans cannot be exported, and are dropped {place}\n") == 1
    found = re.match(rf"{place} lost=(\d+)\n", back)
    # Each in a batch of its own: the first found nobody.
    assert found
    assert int(found[1]) >= 11


def test_a_collector_that_hangs_holds_up_no_request_and_no_end(up: Up, tmp_path: Path) -> None:
    class Hanging(Receiver):
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
            hanging.set()
            released.wait(30)
            return super().Export(request, context)

    hanging, released = threading.Event(), threading.Event()
    with grpc_server(Hanging()) as port:
        settings = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
            "OTEL_BSP_SCHEDULE_DELAY": "20",
            "OTEL_BSP_MAX_QUEUE_SIZE": "50",
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "10",
        }
        with start_serve(up, tmp_path, **settings) as client:
            client.get("/v1/models")
            assert hanging.wait(10)
            with ThreadPoolExecutor(8) as pool:
                answers = pool.map(
                    lambda _: client.post("/v1/models/sklearn-iris:predict", json=IRIS), range(100)
                )
                assert {answer.status_code for answer in answers} == {200}
            stopped = time.monotonic()
        # `start_serve` asked it to end, and waited.
        assert time.monotonic() - stopped < 8
        released.set()
    assert (tmp_path / "serve.log").read_text().count("some spans are dropped") == 1


def test_without_a_collector_the_sdk_is_not_imported() -> None:
    code = """
import sys
from adapter.traces import exported_spans
import adapter.server, adapter.jobs.worker
with exported_spans("x"):
    print([name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))])
"""
    for more in ({}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"}):
        done = subprocess.run(
            [sys.executable, "-c", code], env=more, capture_output=True, text=True, check=True
        )
        assert done.stdout == "[]\n"


def test_a_variable_that_is_wrong_does_not_stop_the_service(up: Up, tmp_path: Path) -> None:
    settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_COMPRESSION": "zip"}
    with start_serve(up, tmp_path, **settings) as client:
        assert client.get("/v1/models").status_code == 200
    assert re.search(r"\[error\] spans are not exported reason=", (tmp_path / "serve.log").read_text())
