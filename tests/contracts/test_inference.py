"""MIaaS's asynchronous requests beyond submit and poll: waiting, arrays, keys, lists, cancelling."""

from typing import Any

import orjson
import pytest

from adapter.core.errors import QueueUnavailable
from adapter.core.types import IdempotencyKey, Job, JobResult
from tests.contracts.running import ROW, SUBMISSION, Api, assert_error


def echo(api: Api) -> Any:
    def answer(job: Job) -> JobResult:
        return JobResult(api.engine.echo(job.request), job.form, job.batched)

    return answer


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("wait=5", 5),
        ("WAIT = 5", 5),
        ('respond-async, wait="7"', 7),
        ("wait=9;x=y, handling=strict", 9),
        ("wait=100000", 60),
    ],
)
def test_waiting_ends_with_the_result(api: Api, header: str, seconds: int) -> None:
    api.queue.answer = echo(api)
    done = api.post("/inference", SUBMISSION, headers={"Prefer": header})
    assert done.status_code == 200
    assert done.headers["Preference-Applied"] == f"wait={seconds}"
    assert done.headers["Location"] == f"/inference/{done.json()['request_id']}"
    assert (done.json()["status"], done.json()["result"]) == ("completed", {"predictions": [ROW]})
    again = api.get(done.headers["Location"], headers={"Prefer": header})
    assert again.json() == done.json()
    assert again.headers["Preference-Applied"] == f"wait={seconds}"
    assert api.queue.waits == [seconds, seconds]


@pytest.mark.parametrize("header", ["", "wait", "wait=", "wait=-1", "wait=1.5", "wait=x", "return=minimal"])
def test_a_preference_that_cannot_be_read_is_none(api: Api, header: str) -> None:
    queued = api.post("/inference", SUBMISSION, headers={"Prefer": header})
    assert (queued.status_code, queued.json()["status"]) == (202, "queued")
    assert "Preference-Applied" not in queued.headers
    assert api.queue.waits == []


def test_a_result_that_does_not_come_in_time_is_polled(api: Api) -> None:
    queued = api.post("/inference", SUBMISSION, headers={"Prefer": "wait=1"})
    assert queued.status_code == 202
    assert queued.json() == {"request_id": queued.json()["request_id"], "status": "queued"}
    held = api.get(queued.headers["Location"], headers={"Prefer": "wait=1"})
    assert (held.json()["status"], held.headers["Retry-After"]) == ("processing", "1")


def test_a_queue_that_goes_while_its_client_waits_is_no_refusal(api: Api) -> None:
    def gone(_: Job) -> JobResult:
        raise QueueUnavailable("NATS cannot be reached")

    api.queue.answer = gone
    assert api.post("/inference", SUBMISSION, headers={"Prefer": "wait=1"}).status_code == 202


@pytest.mark.parametrize("path", ["/inference", "/inference/batch", "/v1/inference/batch"])
def test_an_array_is_answered_place_by_place(api: Api, path: str) -> None:
    bodies = [
        SUBMISSION,
        {**SUBMISSION, "model_id": "none"},
        7,
        {**SUBMISSION, "parameters": {"priority": 1}},
    ]
    answer = api.post(path, bodies)
    assert answer.status_code == 202
    first, unknown, wrong, last = answer.json()
    assert first == {"request_id": first["request_id"], "status": "queued"}
    assert unknown == {"error": {"code": "model_not_found", "message": "Model not found: none"}}
    assert wrong["error"]["message"] == "the body must be a JSON object, got 7"
    assert list(api.queue.jobs) == [first["request_id"], last["request_id"]]
    assert [submission.priority for submission in api.queue.submissions] == [0, 1]


def test_an_array_of_a_thousand_and_one_is_refused(api: Api) -> None:
    assert len(api.post("/inference", [SUBMISSION] * 1000).json()) == 1000
    for bodies in ([], [SUBMISSION] * 1001):
        answer = api.post("/inference", bodies)
        assert_error(answer, 400, "invalid_input", "miaas", "the body: expected 1 to 1000 requests")
    assert_error(
        api.post("/inference/batch", SUBMISSION), 400, "invalid_input", "miaas", "the body must be an array"
    )


def test_an_array_of_which_nothing_was_accepted_is_an_error(api: Api) -> None:
    answer = api.post("/inference", [{**SUBMISSION, "model_id": "none"}] * 2)
    assert_error(answer, 404, "model_not_found", "miaas", "Model not found: none")
    api.queue.fault = QueueUnavailable("NATS cannot be reached")
    answer = api.post("/inference", [SUBMISSION] * 2)
    assert_error(answer, 503, "queue_unavailable", "miaas", "NATS cannot be reached")
    assert answer.headers["Retry-After"] == "1"


def test_an_array_counts_once_for_the_rate_limit(api: Api) -> None:
    api.keys["batcher"] = api.services.keys.create("batcher", ["infer", "read"]).key
    for body, left in (([SUBMISSION] * 20, 999), (SUBMISSION, 998), ([SUBMISSION] * 20, 997)):
        answer = api.post("/inference", body, who="batcher")
        assert (answer.status_code, answer.headers["X-RateLimit-Remaining"]) == (202, str(left))


def test_a_key_goes_with_what_the_body_means(api: Api) -> None:
    for body in (SUBMISSION, dict(reversed(SUBMISSION.items())), {**SUBMISSION, "parameters": {"x": 1}}):
        assert api.post("/inference", body, headers={"Idempotency-Key": "a b"}).status_code == 202
    keys = [submission.idempotency for submission in api.queue.submissions]
    assert [key.key for key in keys if key] == ["a b"] * 3
    assert keys[0] == keys[1] != keys[2]
    api.post("/inference", [SUBMISSION] * 2, headers={"Idempotency-Key": "a"})
    assert keys[0] is not None
    assert [s.idempotency for s in api.queue.submissions[3:]] == [
        IdempotencyKey(f"a\0{n}", keys[0].digest) for n in range(2)
    ]
    api.post("/inference", SUBMISSION)
    assert api.queue.submissions[-1].idempotency is None


def test_a_key_goes_with_what_tokens_and_long_integers_mean(api: Api) -> None:
    """Bodies that only the standard library parses; `null` and the tokens are four things."""
    long = 10**30
    rows = [f"[{token}, {long}, 1, 2]" for token in ("NaN", "Infinity", "-Infinity")] + ["[NaN, 3, 1, 2]"]
    bodies = [f'{{"model_id": "sklearn-iris", "input_data": {{"instances": [{row}]}}}}' for row in rows]
    body = '{"model_id": "two", "parameters": %s, "input_data": {"inputs": {"a": [[%s, 2]], "b": [[1]]}}}'
    bodies += [body % ("null", value) for value in ("1", "NaN", "Infinity")] + [body % ('{"x": "null"}', 1)]
    first = [_digest(api, body) for body in bodies]
    assert len(set(first)) == len(bodies)
    assert [_digest(api, body.replace(" ", "")) for body in bodies] == first
    swapped = f'{{"input_data": {{"instances": [{rows[0]}]}}, "model_id": "sklearn-iris"}}'
    assert _digest(api, swapped) == first[0]


def test_what_a_key_goes_with_is_what_it_went_with_before(api: Api) -> None:
    """Replicas of two versions must agree about a body while one follows the other."""
    assert _digest(api, orjson.dumps(SUBMISSION)) == "b83f906d264f449946c789497c8f3d47"
    with_null = orjson.dumps({**SUBMISSION, "parameters": None})
    assert _digest(api, with_null) == "ace0344f44e724a024a05eeb5c6ea757"


def test_of_an_array_with_a_key_each_place_is_told(api: Api) -> None:
    row = '{"model_id": "sklearn-iris", "input_data": {"instances": [[%s, 1, 2, 3]]}}'
    content = f"[{row % 1}, {row % 10**30}, {row % 'NaN'}]"
    answer = api.post("/inference", content=content, headers={"Idempotency-Key": "a"})
    assert (answer.status_code, [place["status"] for place in answer.json()]) == (202, ["queued"] * 3)


def _digest(api: Api, body: str | bytes) -> str:
    """What the queue is told of a body besides its key."""
    answer = api.post("/inference", content=body, headers={"Idempotency-Key": "a"})
    assert answer.status_code == 202, answer.text
    idempotency = api.queue.submissions[-1].idempotency
    assert idempotency is not None
    return idempotency.digest


@pytest.mark.parametrize("key", ["", "x" * 256, "\xe9"])
def test_a_key_that_is_none_is_refused(api: Api, key: str) -> None:
    answer = api.post("/inference", SUBMISSION, headers={b"Idempotency-Key": key.encode("latin-1")})
    assert_error(answer, 400, "invalid_input", "miaas", "Idempotency-Key: expected 1 to 255 printable")


def test_the_list_is_the_callers_own_in_pages(api: Api) -> None:
    ids = [api.post("/inference", SUBMISSION).json()["request_id"] for _ in range(25)]
    api.post("/inference", SUBMISSION, who="bob")
    first = api.get("/inference").json()
    assert [line["request_id"] for line in first["requests"]] == ids[:4:-1]
    assert first["requests"][0].keys() == {"request_id", "model_id", "status", "submitted", "timestamp"}
    assert (first["requests"][0]["model_id"], first["requests"][0]["status"]) == (
        "sklearn-iris",
        "processing",
    )
    last = api.get("/v1/inference", params={"cursor": first["next"], "limit": 100}).json()
    assert [line["request_id"] for line in last["requests"]] == ids[4::-1]
    assert "next" not in last


@pytest.mark.parametrize("limit", ["0", "101", "-1", "x", "1.0", "", "9" * 400, "\u0663"])
def test_a_page_has_a_size(api: Api, limit: str) -> None:
    answer = api.get("/inference", params={"limit": limit})
    assert_error(answer, 400, "invalid_input", "miaas", "limit: expected an integer from 1 to 100")


def test_cancel(api: Api) -> None:
    job_id = api.post("/inference", SUBMISSION).json()["request_id"]
    theirs = api.call("DELETE", f"/inference/{job_id}", who="bob")
    assert_error(theirs, 404, "request_not_found", "miaas")
    assert_error(api.call("DELETE", f"/inference/{job_id}", who="reader"), 403, "permission_denied", "miaas")
    cancelled = api.call("DELETE", f"/v1/inference/{job_id}")
    assert cancelled.status_code == 200
    assert (cancelled.json()["status"], cancelled.json()["error"]["code"]) == ("failed", "cancelled")
    assert api.get(f"/inference/{job_id}").json() == cancelled.json()
    for wrong in ("*", "x" * 65):
        assert_error(api.call("DELETE", f"/inference/{wrong}"), 404, "request_not_found", "miaas")
