"""The MIaaS control plane over HTTP: health, submit and poll."""

from datetime import UTC, datetime
from typing import Any

import pytest

from adapter.core.errors import AdapterError, EngineUnavailable, PayloadTooLarge, QueueFull, QueueUnavailable
from adapter.core.types import InferResponse, JobError, JobResult, Tensor
from tests.contracts.running import NAMED, ROW, SUBMISSION, Api, assert_error

# --- Health ---


@pytest.mark.parametrize("path", ["/health", "/v1/health"])
def test_health(api: Api, path: str) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    body = api.get(path).json()
    assert set(body) == {"status", "timestamp"}
    assert body["status"] == "healthy"
    assert body["timestamp"].endswith("Z")
    assert before <= datetime.fromisoformat(body["timestamp"]) <= datetime.now(UTC)


@pytest.mark.parametrize(
    ("down", "error"), [("engine", EngineUnavailable("Triton!")), ("queue", QueueUnavailable("NATS!"))]
)
def test_health_is_503_while_a_back_end_is_down(api: Api, down: str, error: AdapterError) -> None:
    getattr(api, down).fault = error
    response = api.get("/health")
    assert_error(response, 503, error.code, "miaas", error.message)
    assert response.headers["retry-after"] == "1"


def test_the_root_is_alive_for_kserves_client(api: Api) -> None:
    assert api.get("/").json() == {"status": "alive"}


# --- Submit and poll ---


@pytest.mark.parametrize("path", ["/inference", "/v1/inference"])
def test_submit_poll_and_read(api: Api, path: str) -> None:
    response = api.post(path, SUBMISSION)
    assert response.status_code == 202
    job_id = response.json()["request_id"]
    assert response.json() == {"request_id": job_id, "status": "queued"}
    assert response.headers["location"] == f"{path}/{job_id}"
    job = api.queue.jobs[job_id]
    assert (job.client, job.form, job.batched) == ("alice", "predictions", True)
    assert job.request.model_name == "sklearn-iris"
    assert job.deadline - job.submitted == 3600

    waiting = api.get(response.headers["location"])
    assert waiting.status_code == 200
    assert waiting.headers["retry-after"] == "1"
    submitted = datetime.fromtimestamp(job.submitted, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
    assert waiting.json() == {"request_id": job_id, "status": "processing", "timestamp": submitted}

    outcome = InferResponse("sklearn-iris", "2", job.request.inputs)
    api.queue.results[job_id] = JobResult(outcome, job.form, job.batched)
    done = api.get(f"{path}/{job_id}")
    assert "retry-after" not in done.headers
    assert done.json() == {
        "request_id": job_id,
        "status": "completed",
        "result": {"predictions": [ROW]},
        "timestamp": submitted,
    }
    # Below both prefixes it is the same request.
    assert api.get(f"/inference/{job_id}").json() == api.get(f"/v1/inference/{job_id}").json() == done.json()


@pytest.mark.parametrize(
    ("input_data", "result"),
    [
        ({"inputs": [ROW]}, {"outputs": [ROW]}),
        ({"input": [ROW]}, {"output": [ROW]}),
        ({name: [value] for name, value in NAMED.items()}, {"output": [ROW]}),
    ],
)
def test_the_result_mirrors_the_input(api: Api, input_data: Any, result: Any) -> None:
    job_id = api.post("/inference", SUBMISSION | {"input_data": input_data}).json()["request_id"]
    job = api.queue.jobs[job_id]
    api.queue.results[job_id] = JobResult(api.engine.echo(job.request), job.form, job.batched)
    assert api.get(f"/inference/{job_id}").json()["result"] == result


def test_a_failed_request_tells_its_error(api: Api) -> None:
    job_id = api.post("/inference", SUBMISSION).json()["request_id"]
    error = JobError("inference_failed", "the model broke")
    api.queue.results[job_id] = JobResult(error, "predictions", batched=True)
    response = api.get(f"/inference/{job_id}")
    assert response.status_code == 200
    body = response.json()
    del body["timestamp"]
    assert body == {
        "request_id": job_id,
        "status": "failed",
        "error": {"code": "inference_failed", "message": "the model broke"},
    }


def test_a_result_that_breaks_the_protocol_is_a_failed_one(api: Api) -> None:
    job_id = api.post("/inference", SUBMISSION).json()["request_id"]
    outcome = InferResponse("sklearn-iris", "2", (Tensor("output", "FP32", (1, 4), bytes(3)),))
    api.queue.results[job_id] = JobResult(outcome, "predictions", batched=True)
    body = api.get(f"/inference/{job_id}").json()
    assert (body["status"], body["error"]["code"]) == ("failed", "inference_failed")
    assert "result" not in body


def test_another_clients_request_is_the_same_404_as_an_unknown_one(api: Api) -> None:
    job_id = api.post("/inference", SUBMISSION).json()["request_id"]
    unknown = "0" * len(job_id)
    theirs = api.get(f"/inference/{job_id}", who="bob")
    nobodys = api.get(f"/inference/{unknown}", who="bob")
    assert_error(theirs, 404, "request_not_found", "miaas", "no request with the id ")
    assert theirs.text.replace(job_id, unknown) == nobodys.text
    assert theirs.status_code == nobodys.status_code


@pytest.mark.parametrize("job_id", ["*", ">", "a.b", "a%20b", "x" * 65, "%F0%9F%98%80", "%00"])
def test_an_id_that_none_can_be_never_reaches_the_queue(api: Api, job_id: str) -> None:
    api.queue.fault = RuntimeError("asked")
    assert_error(
        api.get(f"/inference/{job_id}"), 404, "request_not_found", "miaas", "no request with the id "
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_id": 1}, "model_id: expected a string, got 1"),
        ({"model_id": None}, "model_id: expected a string, got null"),
        ({"model": "x"}, "'model' is no member of an inference request"),
        ({"input_data": [ROW]}, "input_data: expected an object, got an array of 1"),
        ({"input_data": {}}, "input 'input': input_data: expected all of 'input', got no names"),
        ({"input_data": {"instances": []}}, "instances: expected at least one instance"),
        (
            {"input_data": {"input": [[1, 2, 3, None]]}},
            "input 'input': input_data.input[0][3]: expected a number (FP32), got null",
        ),
        ({"parameters": []}, "parameters: expected an object, got an array of 0"),
        ({"parameters": {"x": [1]}}, "parameters.x: expected a scalar, got an array of 1"),
        ({"parameters": {"x": None}}, "parameters.x: expected a scalar, got null"),
        ({"parameters": {"x": 2**63}}, "parameters.x: expected a 64-bit integer"),
        ({"parameters": {"triton_x": 1}}, "parameters.triton_x: names that begin with triton_"),
        ({"parameters": {"timeout_s": 0}}, "parameters.timeout_s: expected seconds"),
        ({"parameters": {"timeout_s": True}}, "parameters.timeout_s: expected seconds"),
        ({"parameters": {"timeout_s": "5"}}, "parameters.timeout_s: expected seconds"),
        ({"parameters": {"timeout_s": 604801}}, "parameters.timeout_s: expected seconds"),
        ({"parameters": {"priority": -1}}, "parameters.priority: expected an integer"),
        ({"parameters": {"priority": 1.0}}, "parameters.priority: expected an integer"),
    ],
)
def test_what_can_never_succeed_is_refused_at_submission(api: Api, change: Any, message: str) -> None:
    assert_error(api.post("/inference", SUBMISSION | change), 400, "invalid_input", "miaas", message)
    assert api.queue.jobs == {}


@pytest.mark.parametrize("model_id", ["none", "sklearn-iris@3", "sklearn-iris@", "*", ""])
def test_an_unknown_model_is_refused_at_submission(api: Api, model_id: str) -> None:
    response = api.post("/inference", SUBMISSION | {"model_id": model_id})
    assert_error(response, 404, "model_not_found", "miaas", "Model not found: ")
    assert api.queue.jobs == {}


def test_a_model_that_is_not_ready_is_told_at_submission(api: Api) -> None:
    response = api.post("/inference", SUBMISSION | {"model_id": "loading"})
    assert_error(response, 503, "model_not_ready", "miaas", "Model loading is not ready")
    assert response.headers["retry-after"] == "1"


@pytest.mark.parametrize("missing", ["model_id", "input_data"])
def test_a_member_that_is_missing_is_named(api: Api, missing: str) -> None:
    body = {name: value for name, value in SUBMISSION.items() if name != missing}
    assert_error(api.post("/inference", body), 400, "invalid_input", "miaas", f"{missing}: is missing")


def test_an_error_of_the_input_has_details(api: Api) -> None:
    change = {"input_data": {"input": [[1, 2, 3, None]]}}
    error = api.post("/inference", SUBMISSION | change).json()["error"]
    assert error["details"] == {
        "input": "input",
        "path": "input_data.input[0][3]",
        "expected": "a number (FP32)",
        "got": "null",
    }


def test_parameters_go_with_the_request(api: Api) -> None:
    parameters = {"timeout_s": 2.5, "priority": 3, "seed": -1, "top_p": 0.5, "name": "é", "": True}
    job_id = api.post("/inference", SUBMISSION | {"parameters": parameters}).json()["request_id"]
    job = api.queue.jobs[job_id]
    assert job.request.parameters == {"priority": 3, "seed": -1, "top_p": 0.5, "name": "é", "": True}
    assert job.deadline - job.submitted == pytest.approx(2.5)


@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [
        (QueueUnavailable("NATS cannot be reached"), 503, "1"),
        (QueueFull("the queue is full"), 503, "5"),
        (PayloadTooLarge("more than the queue takes"), 413, None),
    ],
)
def test_what_the_queue_says_is_told(
    api: Api, error: AdapterError, status: int, retry_after: str | None
) -> None:
    api.queue.fault = error
    response = api.post("/inference", SUBMISSION)
    assert_error(response, status, error.code, "miaas", error.message)
    assert response.headers.get("retry-after") == retry_after
