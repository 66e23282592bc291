"""The log of a real service: a line per request and per job, in one format, and nothing secret in it."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapter.sockets import listen
from adapter.standalone.network import port_of
from tests.integration.conftest import Up, eventually, make_repository, start_up
from tests.integration.examples import blocks, run_bash
from tests.integration.serving import make_key, serving

CANARY = 867530912345.0
ROW = [CANARY, 3.5, 1.4, 0.2]
IRIS = {"instances": [ROW]}
V2_IRIS = {"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 4], "data": ROW}]}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
MADE = re.compile(r"[0-9a-f]{32}\Z")


@dataclass
class Logged:
    """An `up` that logs JSON."""

    up: Up

    def lines(self, role: str) -> list[dict[str, Any]]:
        """What a process of ours logged so far."""
        return [json.loads(line) for line in (self.up.state_dir / "logs" / role).read_text().splitlines()]

    def line(self, request_id: str, role: str = "api-1.log", event: str = "request") -> dict[str, Any]:
        """The only line of a request, or of the job that it submitted, as soon as it is there."""

        def look() -> list[dict[str, Any]]:
            lines = self.lines(role)
            return [line for line in lines if (line["event"], line.get("request_id")) == (event, request_id)]

        [found] = eventually(look)
        return found


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logged]:
    folder = tmp_path_factory.mktemp("logged")
    repository = make_repository(folder, "sklearn-iris")
    with start_up(folder, repository, ADAPTER_LOG_FORMAT="json") as up:
        yield Logged(up)


def timeless(line: dict[str, Any]) -> dict[str, Any]:
    """The line without what is never the same twice, after a look at it."""
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line["timestamp"])
    times = {name: value for name, value in line.items() if name == "ms" or name.endswith("_ms")}
    assert all(0 <= value <= 60_000 for value in times.values())
    stages = sum(value for name, value in times.items() if name not in ("ms", "wait_ms"))
    assert stages <= times["ms"]
    return {name: value for name, value in line.items() if name not in times and name != "timestamp"}


@pytest.mark.parametrize(
    ("contract", "path", "body"),
    [
        ("v1", "/v1/models/sklearn-iris/versions/1:predict", IRIS),
        ("v2", "/v2/models/sklearn-iris/versions/1/infer", V2_IRIS),
    ],
)
def test_a_request_has_a_line(logged: Logged, contract: str, path: str, body: Any) -> None:
    headers = {"X-Request-ID": f"one/{contract}", "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
    answer = logged.up.client.post(f"{path}?token=canary-in-query", json=body, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["X-Request-ID"] == f"one/{contract}"
    line = logged.line(f"one/{contract}")
    assert {"ms", "decode_ms", "infer_ms", "encode_ms"} <= line.keys()
    assert timeless(line) == {
        "event": "request",
        "level": "info",
        "request_id": f"one/{contract}",
        "trace_id": TRACE,
        "client": "up",
        "address": "127.0.0.1",
        "contract": contract,
        "method": "POST",
        "path": path,
        "model": "sklearn-iris",
        "version": "1",
        "code": 200,
        "bytes_in": len(answer.request.content),
        "bytes_out": len(answer.content),
    }


def test_a_job_has_a_line_with_the_id_of_the_request_that_submitted_it(logged: Logged) -> None:
    body = {"model_id": "sklearn-iris", "input_data": IRIS}
    headers = {"X-Request-ID": "a-job", "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
    answer = logged.up.client.post("/inference", json=body, headers=headers)
    job = answer.json()["request_id"]
    submitted = {
        "event": "request",
        "level": "info",
        "request_id": "a-job",
        "trace_id": TRACE,
        "client": "up",
        "address": "127.0.0.1",
        "contract": "miaas",
        "method": "POST",
        "path": "/inference",
        "model": "sklearn-iris",
        "version": "2",
        "job": job,
        "code": 202,
        "bytes_in": len(answer.request.content),
        "bytes_out": len(answer.content),
    }
    assert timeless(logged.line("a-job")) == submitted
    line = logged.line("a-job", "worker.log", "job")
    assert {"ms", "wait_ms", "infer_ms"} <= line.keys()
    assert timeless(line) == {
        "event": "job",
        "level": "info",
        "request_id": "a-job",
        "trace_id": TRACE,
        "job": job,
        "client": "up",
        "model": "sklearn-iris",
        "outcome": "completed",
        "attempt": 1,
    }


def test_a_job_that_fails_says_why_by_its_code(logged: Logged) -> None:
    body = {"model_id": "sklearn-iris", "input_data": IRIS, "parameters": {"timeout_s": 1e-6}}
    logged.up.client.post("/inference", json=body, headers={"X-Request-ID": "late"})
    line = logged.line("late", "worker.log", "job")
    assert (line["outcome"], line["code"]) == ("failed", "deadline_exceeded")


@pytest.mark.parametrize(
    ("method", "path", "options", "status"),
    [
        ("GET", "/v1/models/none", {}, 404),
        ("GET", "/v2/models/none", {}, 404),
        ("GET", "/models/none", {}, 404),
        ("GET", "/no/such/path", {}, 404),
        ("DELETE", "/v1/models/sklearn-iris", {}, 405),
        ("POST", "/v1/models/sklearn-iris:predict", {"json": {}}, 400),
        ("POST", "/v2/models/sklearn-iris/infer", {"json": []}, 400),
        ("POST", "/inference", {"content": b"{"}, 400),
        ("POST", "/v1/models/sklearn-iris:explain", {"json": {}}, 501),
        ("GET", "/v1/models", {"headers": {"X-API-Key": "miaas_canary_key"}}, 401),
        ("GET", "/v2", {"headers": {"X-API-Key": ""}}, 401),
    ],
)
def test_every_answer_carries_the_id_of_its_line(
    logged: Logged, method: str, path: str, options: dict[str, Any], status: int
) -> None:
    answer = logged.up.client.request(method, path, **options)
    assert answer.status_code == status
    request_id = answer.headers["X-Request-ID"]
    assert MADE.match(request_id)
    line = logged.line(request_id)
    assert (line["code"], line["method"], line["path"]) == (status, method, path)
    assert line["level"] == ("error" if status >= 500 else "info")


@pytest.mark.parametrize(
    "hostile",
    [
        b"two words",
        b"tab\there",
        b'quote"; drop',
        "ünïcode".encode(),
        b"x" * 129,
        b"",
        b"a,b",
        b"{json}",
        b"<script>",
    ],
)
def test_a_hostile_request_id_is_replaced(logged: Logged, hostile: bytes) -> None:
    headers = [(b"X-Request-ID", hostile), (b"X-API-Key", logged.up.facts["api_key"].encode())]
    answer = _raw(logged.up.facts["url"], b"GET /v1/models HTTP/1.1\r\n", headers)
    [request_id] = re.findall(rb"(?im)^x-request-id: (.*?)\r$", answer)
    assert MADE.match(request_id.decode())
    assert logged.line(request_id.decode())["code"] == 200


@pytest.mark.parametrize(
    "good", ["1", "x" * 128, "Root=1-67891233-abcdef012345678912345678", "a.b_c:d/e+f=@g-h"]
)
def test_a_well_formed_request_id_is_kept(logged: Logged, good: str) -> None:
    answer = logged.up.client.get("/health", headers={"X-Request-ID": good})
    assert answer.headers.get_list("X-Request-ID") == [good]


@pytest.mark.parametrize(
    ("request_line", "headers", "status"),
    [(b"no HTTP at all\r\n", [], 400), (b"GET /v2/x HTTP/1.1\r\n", [(b"x", b"y" * 40_000)], 431)],
)
def test_what_is_refused_before_it_is_a_request_has_a_line_as_well(
    logged: Logged, request_line: bytes, headers: list[tuple[bytes, bytes]], status: int
) -> None:
    answer = _raw(logged.up.facts["url"], request_line, headers)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    [request_id] = re.findall(rb"(?im)^x-request-id: (.*?)\r$", answer)
    line = logged.line(request_id.decode(), event="refused")
    assert (line["code"], line["address"]) == (status, "127.0.0.1")


def test_a_clients_own_id_of_an_inference_is_left_alone(logged: Logged) -> None:
    headers = {"X-Request-ID": "for-the-log"}
    path = "/v2/models/sklearn-iris/infer"
    assert "id" not in logged.up.client.post(path, json=V2_IRIS, headers=headers).json()
    answer = logged.up.client.post(path, json={**V2_IRIS, "id": "mine"}, headers=headers)
    assert answer.json()["id"] == "mine"
    assert answer.headers["X-Request-ID"] == "for-the-log"


def test_the_examples_of_the_document(logged: Logged) -> None:
    headers = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
    path, inference = "/v1/models/sklearn-iris:predict", {"model_id": "sklearn-iris", "input_data": IRIS}
    logged.up.client.post(path, json=IRIS, headers={**headers, "X-Request-ID": "shown"})
    logged.up.client.post("/inference", json=inference, headers={"X-Request-ID": "shown-job"})
    request, job = map(json.loads, blocks("logs.md", "json"))
    assert request.keys() == logged.line("shown").keys()
    assert job.keys() == logged.line("shown-job", "worker.log", "job").keys()
    slowest, one = blocks("logs.md", "bash")
    log = str(logged.up.state_dir / "logs" / "api-1.log")
    times = [float(line.split()[0]) for line in run_bash(slowest, logged.up, LOG=log).splitlines()]
    assert 1 <= len(times) <= 5
    assert times == sorted(times, reverse=True)
    assert json.loads(run_bash(one, logged.up, LOG=log))["path"] == "/v1/models"


def test_nothing_secret_is_in_any_line(logged: Logged) -> None:
    with httpx.Client(base_url=logged.up.facts["url"]) as client:
        token = {"Authorization": "Bearer canary-token"}
        last = client.get("/v1/models?key=canary-in-query", headers=token).headers["X-Request-ID"]
    tensor = {"name": "input", "datatype": "FP32", "shape": [1, 4], "data": ["canary-in-payload"] * 4}
    broken = {"id": "canary-of-v2", "inputs": [tensor]}
    assert logged.up.client.post("/v2/models/sklearn-iris/infer", json=broken).status_code == 400
    logged.line(last)
    for log in (logged.up.state_dir / "logs").glob("*.log"):
        text = log.read_text()
        assert "canary" not in text
        assert logged.up.facts["api_key"] not in text
        assert str(int(CANARY)) not in text


def _raw(url: str, request_line: bytes, headers: list[tuple[bytes, bytes]]) -> bytes:
    """What comes back for bytes that no client would send."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        lines = [b"%b: %b\r\n" % header for header in [*headers, (b"Host", b"x"), (b"Connection", b"close")]]
        connection.sendall(request_line + b"".join(lines) + b"\r\n")
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    return answer


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_client_breaks_a_line(tmp_path: Path, form: str) -> None:
    key = make_key(tmp_path, "weird")
    with serving(tmp_path, LOG_FORMAT=form) as api:
        sent = "/no%0Asuch%0D%1B%5B31m%E2%80%A8%22path%22%20event=request"
        assert httpx.get(api.url + sent, headers={**key, "X-Request-ID": "weird"}).status_code == 404
        eventually(lambda: api.says("/no"))
    # Times and ids of other lines may hold these digits.
    [line] = [line for line in api.log.read_bytes().splitlines() if b"/no" in line]
    assert b"\x1b" not in line
    path = '/no\nsuch\r\x1b[31m\u2028"path" event=request'
    if form == "json":
        assert (json.loads(line)["path"], json.loads(line)["code"]) == (path, 404)
    else:
        assert f" path={path!r} ".encode() in line
        assert b" code=404 " in line


@pytest.mark.parametrize("sample", ["0", "1"])
def test_a_share_of_the_requests_has_lines_and_every_failure(tmp_path: Path, sample: str) -> None:
    key = make_key(tmp_path, "sampled")
    with serving(tmp_path, LOG_FORMAT="json", ACCESS_LOG_SAMPLE=sample) as api:
        for _ in range(20):
            assert httpx.get(api.url + "/", headers=key).status_code == 200
        assert _raw(api.url, b"no HTTP\r\n", []).startswith(b"HTTP/1.1 400 ")
        # There is no Triton.
        assert httpx.get(api.url + "/v1/models", headers=key).status_code == 503
        eventually(lambda: api.says('"code":503'))
    lines = [json.loads(line) for line in api.log.read_text().splitlines()]
    codes = [line["code"] for line in lines if line["event"] in ("request", "refused")]
    assert codes == ([200] * 20 + [400, 503] if sample == "1" else [503])


def test_a_pipe_that_nobody_reads_stops_nothing(tmp_path: Path) -> None:
    key = make_key(tmp_path, "piped")
    with listen("127.0.0.1", 0, "") as api, listen("127.0.0.1", 0, "") as ops:
        command = [
            sys.executable,
            "-m",
            "adapter",
            "serve",
            "--fd",
            str(api.fileno()),
            "--ops-fd",
            str(ops.fileno()),
        ]
        environment = {**os.environ, "ADAPTER_STATE_DIR": str(tmp_path), "ADAPTER_LOG_FORMAT": "json"}
        fds = [api.fileno(), ops.fileno()]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, pass_fds=fds)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port_of(api)}", headers=key, timeout=20) as client:
                # A pipe holds 64 KiB: these are many times more.
                for _ in range(900):
                    assert client.get("/" + "x" * 500).status_code == 404
            process.terminate()
            _, told = process.communicate(timeout=20)
        finally:
            process.kill()
    lines = [json.loads(line) for line in told.splitlines()]
    assert sum(line["event"] == "request" for line in lines) == 900
