"""What a careless or a hostile client sends: answered in the contract's form, and the next request works."""

import base64
import json
import socket
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.conftest import Up, eventually, make_repository, start_serve, start_up

IRIS = {"instances": [[5.1, 3.5, 1.4, 0.2]]}
LIMIT = 1 << 20


@pytest.fixture(scope="module")
def strict(up: Up, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """An API process with a small limit for bodies, little patience, and tokens for NaN."""
    folder = tmp_path_factory.mktemp("strict")
    with start_serve(
        up,
        folder,
        ADAPTER_MAX_BODY_BYTES=str(LIMIT),
        ADAPTER_INFER_TIMEOUT_S="1",
        ADAPTER_NAN_TOKENS="true",
    ) as client:
        yield client


def send_raw(client: httpx.Client, head: str, parts: Iterable[bytes] = ()) -> tuple[str, int]:
    """What comes back for raw bytes on a connection, and how many were sent until it came."""
    url = urlsplit(str(client.base_url))
    sent = 0
    with socket.create_connection((url.hostname, url.port), timeout=10) as connection:
        connection.sendall(head.format(key=client.headers["X-API-Key"]).encode("latin-1"))
        try:
            for part in parts:
                connection.sendall(part)
                sent += len(part)
        except OSError:
            pass
        received = b""
        try:
            while chunk := connection.recv(65536):
                received += chunk
        except OSError:
            pass
    return received.decode(), sent


POST = "POST /v1/models/sklearn-iris:predict HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\n"


@pytest.mark.parametrize(
    "head",
    [
        POST + "Transfer-Encoding: chunked\r\n\r\nZZ\r\n[]\r\n0\r\n\r\n",
        POST + "Content-Length: abc\r\n\r\n[]",
        POST + "Content-Length: 10\r\nContent-Length: 12\r\n\r\n[]",
        POST + "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        POST + "Bad Header\r\n\r\n",
    ],
)
def test_malformed_http_is_refused_in_the_contracts_form(up: Up, head: str) -> None:
    answer, _ = send_raw(up.client, head)
    assert answer.startswith("HTTP/1.1 400 ")
    assert answer.partition("\r\n\r\n")[2] == '{"error":"the request is malformed HTTP"}'
    assert up.predict("sklearn-iris", IRIS).status_code == 200


def test_what_is_no_http_at_all_is_refused_too(up: Up) -> None:
    answer, _ = send_raw(up.client, "EHLO\r\n\r\n")
    assert json.loads(answer.partition("\r\n\r\n")[2])["error"]["code"] == "malformed_request"


def test_a_body_over_the_limit_is_refused_while_it_streams(strict: httpx.Client) -> None:
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    answer, sent = send_raw(strict, POST + "Transfer-Encoding: chunked\r\n\r\n", [chunk] * 2000)
    assert answer.startswith("HTTP/1.1 413 ")
    assert answer.endswith('{"error":"the body is larger than 1048576 bytes"}')
    assert sent < 32 * LIMIT


def test_an_announced_body_over_the_limit_is_refused_before_it_comes(strict: httpx.Client) -> None:
    answer, _ = send_raw(strict, POST + f"Content-Length: {LIMIT + 1}\r\n\r\n")
    assert answer.startswith("HTTP/1.1 413 ")
    submit = POST.replace("/v1/models/sklearn-iris:predict", "/inference")
    answer, _ = send_raw(strict, submit + f"Content-Length: {LIMIT + 1}\r\n\r\n")
    assert json.loads(answer.partition("\r\n\r\n")[2])["error"]["code"] == "payload_too_large"


def test_a_body_of_just_the_limit_is_read(strict: httpx.Client) -> None:
    body = json.dumps(IRIS).encode().ljust(LIMIT)
    assert strict.post("/v1/models/sklearn-iris:predict", content=body).status_code == 200
    assert strict.post("/v1/models/sklearn-iris:predict", content=body + b" ").status_code == 413


def test_a_hundred_thousand_arrays_in_each_other(up: Up) -> None:
    body = b'{"instances":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    answer = up.client.post("/v1/models/sklearn-iris:predict", content=body)
    assert answer.status_code == 400
    assert answer.json() == {"error": "the JSON is nested more than 64 levels deep"}


def test_a_compressed_body_is_not_taken(up: Up) -> None:
    answer = up.client.post(
        "/v1/models/sklearn-iris:predict", content=b"x", headers={"Content-Encoding": "gzip"}
    )
    assert answer.status_code == 415
    assert "gzip" in answer.json()["error"]


@pytest.mark.parametrize(
    "name", ["..", ".", "a%00b", "a%0d%0ab", "*", ">", "a.*", "%2e%2e", "x" * 129, "%F0%9F%98%80"]
)
def test_names_that_no_model_may_have_are_not_found(up: Up, name: str) -> None:
    # httpx would resolve dots; the raw request does not.
    for path in (f"/v1/models/{name}", f"/models/{name}", f"/inference/{name}"):
        request = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-API-Key: {{key}}\r\n\r\n"
        answer, _ = send_raw(up.client, request)
        assert answer.startswith("HTTP/1.1 404 "), answer


def test_nan_comes_as_null_or_by_setting_as_a_token(up: Up, strict: httpx.Client) -> None:
    body = '{"instances": [[NaN, Infinity, -Infinity, 1]]}'
    null = up.client.post("/v1/models/identity-fp32:predict", content=body)
    assert null.text == '{"predictions":[[null,null,null,1.0]]}'
    tokens = strict.post("/v1/models/identity-fp32:predict", content=body)
    assert tokens.text == '{"predictions":[[NaN,Infinity,-Infinity,1.0]]}'


def test_a_key_knows_tokens_and_long_integers_apart(up: Up) -> None:
    def submit(row: str, key: str) -> httpx.Response:
        body = f'{{"model_id": "identity-fp32", "input_data": {{"instances": [{row}]}}}}'
        return up.client.post("/inference", content=body, headers={"Idempotency-Key": key})

    first = submit(f"[NaN, {10**30}]", "tokens")
    assert first.status_code == 202, first.text
    assert submit(f"[NaN,{10**30}]", "tokens").json() == first.json()
    for other in (f"[Infinity, {10**30}]", f"[NaN, {10**30 + 1}]", "[NaN, 1]"):
        answer = submit(other, "tokens")
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "idempotency_conflict")


def test_a_model_that_is_too_slow_is_504(strict: httpx.Client, up: Up) -> None:
    answer = strict.post("/v1/models/sleepy:predict", json={"inputs": [3.0]})
    assert answer.status_code == 504
    assert answer.json() == {"error": "Triton did not answer in time"}

    submitted = up.submit("sleepy", {"inputs": [3.0]}, parameters={"timeout_s": 0.5})
    status = up.result(submitted.json()["request_id"])
    assert status["status"] == "failed"
    assert status["error"]["code"] == "deadline_exceeded"


def test_a_model_that_breaks_is_500_without_a_word_of_the_server(up: Up) -> None:
    answer = up.predict("broken", {"inputs": [1.0]})
    assert answer.status_code == 500
    assert answer.json()["error"].endswith("ValueError: this model always fails")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["b64", "aGk=", "instances", "inputs", "input"]),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.sampled_from(["instances", "inputs", "b64", "input", "a", "b", "c"]), inner)
    ),
    max_leaves=12,
)
MODELS = st.sampled_from(
    ["sklearn-iris", "imagenet", "two-io", "identity-bytes", "identity-bool", "identity-int8"]
)


@given(
    model=MODELS,
    body=JSON | st.fixed_dictionaries({"instances": JSON}) | st.fixed_dictionaries({"inputs": JSON}),
)
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_json_is_answered_by_200_or_a_clear_refusal(up: Up, model: str, body: Any) -> None:
    answer = up.client.post(f"/v1/models/{model}:predict", content=json.dumps(body))
    assert answer.status_code in (200, 400), answer.text
    if answer.status_code == 400:
        assert list(answer.json()) == ["error"]
        assert isinstance(answer.json()["error"], str)
    request = json.dumps({"model_id": model, "input_data": body})
    answer = up.client.post("/inference", content=request)
    assert answer.status_code in (202, 400), answer.text
    if answer.status_code == 400:
        assert answer.json()["error"].keys() <= {"code", "message", "details"}
    assert up.predict("sklearn-iris", IRIS).status_code == 200


@given(body=st.binary(max_size=60))
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_bytes_are_answered_by_a_clear_refusal(up: Up, body: bytes) -> None:
    for path in ("/v1/models/sklearn-iris:predict", "/inference"):
        answer = up.client.post(path, content=body)
        assert answer.status_code == 400
        assert "error" in answer.json()


def test_triton_that_dies_in_the_middle_of_a_call(tmp_path: Path) -> None:
    with start_up(tmp_path, make_repository(tmp_path, "sleepy")) as own:
        answers: list[httpx.Response] = []
        call = threading.Thread(target=lambda: answers.append(own.predict("sleepy", {"inputs": [30.0]})))
        call.start()
        eventually((own.repository / "sleepy" / "1" / ".busy").exists)
        own.kill("triton")
        call.join(20)
        assert [answer.status_code for answer in answers] == [503]
        eventually(lambda: own.predict("sleepy", {"inputs": [0.0]}).status_code == 200)


def test_an_image_that_is_none(up: Up) -> None:
    truncated = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(20)).decode()
    answer = up.predict("imagenet", {"instances": [{"image_bytes": {"b64": truncated}}]})
    assert answer.status_code == 400


@pytest.mark.parametrize("parts", [1, 2])
def test_an_offer_of_http2_is_passed_over_and_the_body_read(up: Up, parts: int) -> None:
    body = json.dumps(IRIS)
    offer = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    head = POST + offer + f"Content-Length: {len(body)}\r\n\r\n"
    key = up.facts["api_key"]
    close = (
        f"GET /v1/models/sklearn-iris HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-API-Key: {key}\r\n\r\n"
    )
    first = body.replace("{", "{{").replace("}", "}}")
    if parts == 1:
        answer, _ = send_raw(up.client, head + first, [close.encode()])
    else:
        answer, _ = send_raw(up.client, head, [body.encode(), close.encode()])
    assert answer.startswith("HTTP/1.1 200 ")
    assert '{"predictions":[[1.0,' in answer
    assert '"name":"sklearn-iris"' in answer
