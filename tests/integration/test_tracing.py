"""Traces from the client through the adapter, Triton and the queue, received by a real OTLP receiver."""

import asyncio
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.conftest import eventually, start_serve
from tests.integration.examples import blocks, run_bash
from tests.integration.otlp import Span
from tests.integration.tracing import CALLER, CANARY, IRIS, SEVERAL, Traced, start_traced

API, WORKER, TRITON = "miaas-adapter", "miaas-adapter-worker", "triton-inference-server"
CALL = "inference.GRPCInferenceService/ModelInfer"


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    with start_traced(tmp_path_factory.mktemp("traced")) as traced:
        yield traced


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
    server = f"POST {route}"
    headers = {"X-Request-ID": "of-the-client"}
    trace, answer, spans = traced.joined_by_triton(path, body, server, "sklearn-iris", **headers)
    assert answer.status_code == 200
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
    body = {"model_id": "sklearn-iris", "input_data": IRIS}
    names = ("POST /inference", "process MIAAS_JOBS", "publish MIAAS_RESULTS")
    trace, answer, spans = traced.joined_by_triton("/inference", body, *names)
    assert answer.status_code == 202
    job = answer.json()["request_id"]
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
    for batch in batches:
        members = [found for found in spans if (found["infer"].trace, found["infer"].id) in batch.links]
        assert 2 <= len(members) == len(batch.links) <= 8
        # The call is in the trace of one of them, and each of them points to it.
        [home] = [found for found in members if found["infer"].id == batch.parent]
        assert home["infer"].trace == batch.trace
        assert all(found["wait"].links == {(batch.trace, batch.id)} for found in members)
        assert home[CALL].parent == batch.id
    traces = [batch.trace for batch in batches]
    joined = eventually(
        lambda: [found for found in map(traced.receiver.named, traces) if "InferRequest" in found]
    )
    assert all(found["InferRequest"].parent == found[CALL].id for found in joined)
    # A request alone has its call to itself.
    alone = [found for found in spans if not found["wait"].links]
    assert all(found[CALL].parent == found["infer"].id for found in alone)
    links = {link for found in spans for link in found["wait"].links}
    assert links == {(batch.trace, batch.id) for batch in batches}


def test_what_the_client_does_not_record_nobody_does(traced: Traced) -> None:
    unrecorded, answer = traced.post("/v1/models/sklearn-iris:predict", IRIS, flags="00")
    assert answer.status_code == 200
    of_a_job, answer = traced.post("/inference", {"model_id": "sklearn-iris", "input_data": IRIS}, flags="00")
    traced.up.result(answer.json()["request_id"])
    # Spans come in order: once those of later requests are here, earlier ones would be.
    traced.joined_by_triton("/v1/models/sklearn-iris:predict", IRIS, "infer")
    body = {"model_id": "sklearn-iris", "input_data": IRIS}
    traced.joined_by_triton("/inference", body, "infer")
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
    for _ in range(SEVERAL):
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
