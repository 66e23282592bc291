"""Traces from the client through the adapter, Triton and the queue, received by a real OTLP receiver."""

import asyncio
import re
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import nats
import pytest

from adapter.jobs.messages import result_subject
from tests.integration.conftest import Up, eventually, make_repository, start_serve, start_up
from tests.integration.examples import blocks, run_bash
from tests.integration.otlp import Receiver, Span, grpc_server, http_server

API, WORKER, TRITON = "miaas-adapter", "miaas-adapter-worker", "triton-inference-server"
CALL = "inference.GRPCInferenceService/ModelInfer"
CALLER = "00f067aa0ba902b7"
CANARY = 867530912345.0
IRIS = {"instances": [[CANARY, 3.5, 1.4, 0.2]]}


@dataclass
class Traced:
    """An `up` whose spans, and whose Triton's, come to a receiver; `collector` says so to other processes."""

    up: Up
    receiver: Receiver
    collector: dict[str, str]

    def post(self, path: str, body: Any, flags: str = "01", **headers: str) -> tuple[str, httpx.Response]:
        """A request within a new trace of the client's; the trace, and the answer."""
        trace = secrets.token_hex(16)
        headers["traceparent"] = f"00-{trace}-{CALLER}-{flags}"
        return trace, self.up.client.post(path, json=body, headers=headers)


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    folder, receiver = tmp_path_factory.mktemp("traced"), Receiver()
    repository = make_repository(folder, "sklearn-iris", "identity-batch")
    with grpc_server(receiver) as port, http_server(receiver) as url:
        collector = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }
        settings = {"ADAPTER_TRITON_TRACES_URL": url, "ADAPTER_BATCH_CALLS": "1"}
        with start_up(folder, repository, **collector, **settings) as up:
            yield Traced(up, receiver, collector)


def assert_tree(spans: dict[str, Span], tree: dict[str, str]) -> None:
    """Each of these spans is a child of the other, and lies within it, unless another process made it."""
    for name, parent in tree.items():
        child, whole = spans[name], spans[parent]
        assert child.parent == whole.id, name
        assert child.service != whole.service or whole.start <= child.start <= child.end <= whole.end, name


@pytest.mark.parametrize(
    ("path", "route", "body"),
    [
        ("/v1/models/sklearn-iris:predict", "/v1/models/{name}:predict", IRIS),
        (
            "/v2/models/sklearn-iris/infer",
            "/v2/models/{name}/infer",
            {"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 4], "data": [CANARY, 2, 3, 4]}]},
        ),
    ],
    ids=["v1", "v2"],
)
def test_one_trace_holds_a_prediction(traced: Traced, path: str, route: str, body: Any) -> None:
    trace, answer = traced.post(path, body, **{"X-Request-ID": "of-the-client"})
    assert answer.status_code == 200
    server = f"POST {route}"
    spans = traced.receiver.wait(trace, server, "InferRequest", "sklearn-iris", "compute")
    assert spans[server].parent == CALLER
    assert_tree(
        spans,
        {
            "decode": server,
            "infer": server,
            "encode": server,
            "wait": "infer",
            CALL: "infer",
            "InferRequest": CALL,
        },
    )
    assert spans["sklearn-iris"].parent == spans["InferRequest"].id
    assert spans["compute"].parent == spans["sklearn-iris"].id
    assert len(traced.receiver.of(trace)) == 9
    of_triton = {"InferRequest", "sklearn-iris", "compute"}
    assert {name: span.service for name, span in spans.items()} == {
        name: TRITON if name in of_triton else API for name in spans
    }
    kinds = {name: span.kind for name, span in spans.items() if name not in of_triton}
    assert kinds == {name: {server: "server", CALL: "client"}.get(name, "internal") for name in kinds}
    assert spans[server].attributes == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "http.route": route,
        "url.path": path,
        "url.scheme": "http",
        "network.protocol.version": "1.1",
        "miaas.request_id": "of-the-client",
        "miaas.client": "up",
    }
    assert spans["infer"].attributes == {"miaas.model": "sklearn-iris", "miaas.version": "2"}
    assert spans[CALL].attributes == {"rpc.system.name": "grpc", "rpc.method": CALL}
    assert not any(span.failed for span in spans.values())


def test_one_trace_holds_a_jobs_submit_wait_inference_and_result(traced: Traced) -> None:
    trace, answer = traced.post("/inference", {"model_id": "sklearn-iris", "input_data": IRIS})
    assert answer.status_code == 202
    job = answer.json()["request_id"]
    names = ("POST /inference", "process MIAAS_JOBS", "publish MIAAS_RESULTS", "compute")
    spans = traced.receiver.wait(trace, *names)
    assert spans["POST /inference"].parent == CALLER
    assert_tree(
        spans,
        {
            "decode": "POST /inference",
            "publish MIAAS_JOBS": "POST /inference",
            "infer": "process MIAAS_JOBS",
            CALL: "infer",
            "InferRequest": CALL,
            "publish MIAAS_RESULTS": "process MIAAS_JOBS",
        },
    )
    waits = [span for span in traced.receiver.of(trace) if span.name == "wait"]
    in_queue, in_batcher = waits
    assert (in_queue.service, in_queue.parent) == (WORKER, spans["publish MIAAS_JOBS"].id)
    assert (in_batcher.service, in_batcher.parent) == (WORKER, spans["infer"].id)
    processed = spans["process MIAAS_JOBS"]
    assert processed.parent == spans["publish MIAAS_JOBS"].id
    assert spans["publish MIAAS_JOBS"].start <= in_queue.start < in_queue.end <= processed.start
    assert spans["infer"].end <= spans["publish MIAAS_RESULTS"].start
    assert spans["publish MIAAS_JOBS"].kind == spans["publish MIAAS_RESULTS"].kind == "producer"
    assert (processed.service, processed.kind) == (WORKER, "consumer")
    assert processed.attributes == {
        "messaging.system": "nats",
        "messaging.operation.type": "process",
        "messaging.destination.name": "MIAAS_JOBS",
        "messaging.message.id": job,
        "miaas.model": "sklearn-iris",
        "miaas.client": "up",
        "miaas.attempt": 1,
    }


def test_a_call_for_several_requests_is_linked_with_each(traced: Traced) -> None:
    traces = [secrets.token_hex(16) for _ in range(32)]

    async def predict_all() -> None:
        here = traced.up.client
        async with httpx.AsyncClient(base_url=here.base_url, headers=here.headers) as client:

            async def predict(trace: str) -> None:
                headers = {"traceparent": f"00-{trace}-{CALLER}-01"}
                path = "/v1/models/identity-batch:predict"
                answer = await client.post(path, json={"instances": [[1.0]]}, headers=headers)
                assert answer.status_code == 200

            await asyncio.gather(*map(predict, traces))

    asyncio.run(predict_all())
    spans = [traced.receiver.wait(trace, "POST /v1/models/{name}:predict") for trace in traces]
    batches = [found["batch"] for found in spans if "batch" in found]
    assert batches
    joined = {(each.trace, each.id) for batch in batches for each in [batch]}
    for batch in batches:
        members = [found for found in spans if (found["infer"].trace, found["infer"].id) in batch.links]
        assert 2 <= len(members) == len(batch.links) <= 8
        # The call is in the trace of one of them, and each of them points to it.
        [home] = [found for found in members if found["infer"].id == batch.parent]
        assert home["infer"].trace == batch.trace
        assert all(found["wait"].links == {(batch.trace, batch.id)} for found in members)
        found = traced.receiver.wait(batch.trace, "InferRequest")
        assert found[CALL].parent == batch.id
        assert found["InferRequest"].parent == found[CALL].id
    # A request alone has its call to itself.
    alone = [found for found in spans if not found["wait"].links]
    assert all(found[CALL].parent == found["infer"].id for found in alone)
    assert {link for found in spans for link in found["wait"].links} == joined


def test_what_the_client_does_not_record_nobody_does(traced: Traced) -> None:
    unrecorded, answer = traced.post("/v1/models/sklearn-iris:predict", IRIS, flags="00")
    assert answer.status_code == 200
    of_a_job, answer = traced.post("/inference", {"model_id": "sklearn-iris", "input_data": IRIS}, flags="00")
    traced.up.result(answer.json()["request_id"])
    # Spans come in order: once those of later requests are here, earlier ones would be.
    for path, body in (
        ("/v1/models/sklearn-iris:predict", IRIS),
        ("/inference", {"model_id": "sklearn-iris", "input_data": IRIS}),
    ):
        trace, _ = traced.post(path, body)
        traced.receiver.wait(trace, "compute", "infer")
    assert traced.receiver.of(unrecorded) == traced.receiver.of(of_a_job) == []


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "00-" + "0" * 32 + f"-{CALLER}-01",
        f"ff-{'a' * 32}-{CALLER}-01",
        f"00-{'A' * 32}-{CALLER}-01",
        "x" * 9000,
    ],
)
def test_a_malformed_traceparent_begins_a_trace_of_our_own(traced: Traced, traceparent: str) -> None:
    request_id = secrets.token_hex(8)
    headers = {"traceparent": traceparent, "X-Request-ID": request_id}
    assert traced.up.client.get("/v1/models/sklearn-iris", headers=headers).status_code == 200

    def look() -> Span | None:
        found = [s for s in traced.receiver.spans if s.attributes.get("miaas.request_id") == request_id]
        return found[0] if found else None

    span = eventually(look)
    assert span.name == "GET /v1/models/{name}"
    assert span.parent == ""


def test_a_mistake_of_the_client_fails_its_decoding_and_not_the_request(traced: Traced) -> None:
    trace, answer = traced.post("/v1/models/sklearn-iris:predict", {"instances": [["x"]]})
    assert answer.status_code == 400
    spans = traced.receiver.wait(trace, "POST /v1/models/{name}:predict")
    assert not spans["POST /v1/models/{name}:predict"].failed
    assert spans["decode"].failed
    assert spans["decode"].attributes == {"error.type": "invalid_input"}
    trace, answer = traced.post("/no/such/path", {})
    assert answer.status_code == 404
    assert traced.receiver.wait(trace, "POST")["POST"].attributes["url.path"] == "/no/such/path"


def test_the_examples_of_the_document(traced: Traced) -> None:
    predict, submit = blocks("tracing.md", "bash")
    run_bash(predict, traced.up)
    run_bash(submit, traced.up)
    names = ("decode", "infer", "wait", CALL, "InferRequest", "sklearn-iris", "compute", "encode")
    found = traced.receiver.wait("4bf92f3577b34da6a3ce929d0e0e4736", *names)
    assert found.keys() == {"POST /v1/models/{name}:predict", *names}
    stages = (
        "POST /inference",
        "publish MIAAS_JOBS",
        "wait",
        "process MIAAS_JOBS",
        "infer",
        "publish MIAAS_RESULTS",
    )
    found = traced.receiver.wait("a3ce929d0e0e47364bf92f3577b34da6", *stages, "compute")
    # The document's trees name all of them.
    drawn = "".join(blocks("tracing.md", ""))
    for name in found:
        assert name in drawn


def test_spans_hold_no_payload_and_no_key(traced: Traced) -> None:
    headers = {"X-Request-ID": "last-of-all"}
    answer = traced.up.client.post(
        "/inference?token=canary-in-query", json={"model_id": "x"}, headers=headers
    )
    assert answer.status_code == 400
    eventually(lambda: any(b"last-of-all" in each for each in traced.receiver.raw))
    everything = b"".join(traced.receiver.raw)
    for secret in (traced.up.facts["api_key"], str(CANARY), str(int(CANARY)), "canary-in-query"):
        assert secret.encode() not in everything


def test_the_share_that_is_recorded_is_as_the_environment_says(traced: Traced, tmp_path: Path) -> None:
    never = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"}
    settings = {**traced.collector, **never, "OTEL_SERVICE_NAME": "sampled"}
    with start_serve(traced.up, tmp_path, **settings) as client:
        assert client.get("/v1/models", headers={"X-Request-ID": "unsampled"}).status_code == 200
        trace = secrets.token_hex(16)
        client.get("/v1/models", headers={"traceparent": f"00-{trace}-{CALLER}-01"})
        assert traced.receiver.wait(trace, "GET /v1/models")["GET /v1/models"].service == "sampled"
    assert [span for span in traced.receiver.spans if span.service == "sampled"] == traced.receiver.of(trace)


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
    with grpc_server(receiver) as port:
        pass
    settings = {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "0.3",
        "OTEL_BSP_SCHEDULE_DELAY": "20",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "1",
    }
    log = tmp_path / "serve.log"
    with start_serve(up, tmp_path, **settings) as client:
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
    place = f"collector=127.0.0.1:{port}"
    assert told.count(f"[warning] spans cannot be exported, and are dropped {place}\n") == 1
    [lost] = re.findall(rf"\[info\] spans are exported again {place} lost=(\d+)\n", told)
    # Each in a batch of its own: the first found nobody.
    assert int(lost) >= 11
    assert "opentelemetry" not in told


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
