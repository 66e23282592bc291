"""Metrics of a running `up` with two API processes: exact after known traffic, whoever is asked or dies."""

import os
import re
import signal
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.integration.conftest import Up, eventually, make_repository, start_up
from tests.integration.serving import serving

ROW = [5.1, 3.5, 1.4, 0.2]
V1 = "/v1/models/sklearn-iris:predict"
V2 = "/v2/models/sklearn-iris/infer"
OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}
Sample = tuple[str, tuple[tuple[str, str], ...]]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """An `up` with two API processes, and a rate limit that nobody reaches."""
    folder = tmp_path_factory.mktemp("two")
    repository = make_repository(folder, "sklearn-iris", "sleepy")
    limit = {"ADAPTER_RATE_LIMIT_PER_MINUTE": "1000000"}
    with start_up(folder, repository, "--workers", "2", **limit) as running:
        yield running


class Scrape:
    """What one scrape said; a new connection each time, so that any process may answer."""

    def __init__(self, url: str) -> None:
        answer = httpx.get(f"{url}/metrics", headers=OPENMETRICS, timeout=20)
        assert answer.status_code == 200
        self.samples: dict[Sample, float] = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
        }

    def __getitem__(self, name: str) -> dict[tuple[str, ...], float]:
        """A metric's series that are not 0, by the values of their labels in the labels' order."""
        return {
            tuple(value for _, value in labels): value
            for (found, labels), value in self.samples.items()
            if found == name and value
        }

    def one(self, name: str, **labels: str) -> float | None:
        """One series' value, if it is there."""
        return self.samples.get((name, tuple(sorted(labels.items()))))

    def since(self, before: "Scrape", name: str) -> dict[tuple[str, ...], float]:
        """By how much a metric's series have grown."""
        grown = {key: value - before[name].get(key, 0) for key, value in self[name].items()}
        return {key: value for key, value in grown.items() if value}

    def counters(self) -> dict[Sample, float]:
        """All that may only grow."""
        return {
            sample: value
            for sample, value in self.samples.items()
            if sample[0].endswith(("_total", "_count", "_bucket"))
        }


def scrape(up: Up) -> Scrape:
    return Scrape(up.facts["ops_url"])


class Traffic:
    """Requests, each on a new connection, and what they must have been counted as."""

    def __init__(self, up: Up) -> None:
        self.up = up
        self.requests: Counter[tuple[str, ...]] = Counter()
        """By code, contract, model and version."""
        self.sent: Counter[tuple[str, ...]] = Counter()
        self.received: Counter[tuple[str, ...]] = Counter()

    def ask(self, code: int, contract: str, method: str, path: str, **options: Any) -> httpx.Response:
        model = options.pop("model", "")
        headers = {"X-API-Key": self.up.facts["api_key"], **options.pop("headers", {})}
        answer = httpx.request(method, self.up.facts["url"] + path, headers=headers, timeout=60, **options)
        assert answer.status_code == code, answer.text
        version = {"": "", "sklearn-iris": "2", "sleepy": "1"}[model]
        self.requests[str(code), contract, model, version] += 1
        if code not in (401, 404):  # then nobody reads the body
            self.sent[contract,] += len(answer.request.content)
        self.received[contract,] += len(answer.content)
        return answer

    def predict(self, rows: int = 1, times: int = 1) -> None:
        for _ in range(times):
            self.ask(200, "v1", "POST", V1, json={"instances": [ROW] * rows}, model="sklearn-iris")


def nonzero(counter: Counter[tuple[str, ...]]) -> dict[tuple[str, ...], int]:
    return {key: value for key, value in counter.items() if value}


def test_every_count_is_exact_after_known_traffic(two: Up) -> None:
    before, traffic = scrape(two), Traffic(two)
    iris, wait = "sklearn-iris", {"Prefer": "wait=30"}
    job = {"model_id": iris, "input_data": {"instances": [ROW]}}
    bad = {"model_id": "sleepy", "input_data": {"inputs": [1e30]}}  # nobody sleeps for so long
    tensor = {"name": "input", "datatype": "FP32", "shape": [3, 4], "data": ROW * 3}

    traffic.predict(rows=2, times=5)
    for _ in range(2):
        traffic.ask(400, "v1", "POST", V1, json={"instances": ["no flower"]}, model=iris)
    traffic.ask(404, "v1", "POST", "/v1/models/made-up:predict", json={"instances": [ROW]})
    traffic.ask(405, "v1", "GET", V1)
    for _ in range(4):
        traffic.ask(200, "v2", "POST", V2, json={"inputs": [tensor]}, model=iris)
    for _ in range(3):
        traffic.ask(200, "miaas", "POST", "/inference", json=job, headers=wait, model=iris)
    # The same job twice: there is one.
    for _ in range(2):
        once = {**wait, "Idempotency-Key": "once"}
        traffic.ask(200, "miaas", "POST", "/inference", json=job, headers=once, model=iris)
    failed = traffic.ask(200, "miaas", "POST", "/inference", json=bad, headers=wait, model="sleepy")
    assert failed.json()["error"]["code"] == "inference_failed"
    slow = {"model_id": "sleepy", "input_data": {"inputs": [1.0]}}
    slow_id = traffic.ask(202, "miaas", "POST", "/inference", json=slow, model="sleepy").json()["request_id"]
    for _ in range(2):
        assert traffic.ask(200, "miaas", "DELETE", f"/inference/{slow_id}").json()["status"] == "failed"
    traffic.ask(202, "miaas", "POST", "/inference/batch", json=[job, {**job, "model_id": "made-up"}])
    traffic.ask(404, "miaas", "GET", "/made-up")
    for key in ("", "miaas_0123456789abcdef_" + "x" * 43, "no.jwt.either"):
        traffic.ask(401, "v1", "POST", V1, json={"instances": [ROW]}, headers={"X-API-Key": key})

    def all_counted() -> Scrape | None:
        now = scrape(two)
        done = now.since(before, "adapter_jobs_total")
        counted = now.since(before, "adapter_request_duration_seconds_count")
        return now if counted == nonzero(traffic.requests) and done.get(("completed",)) == 5 else None

    after = eventually(all_counted)
    assert after.since(before, "adapter_request_body_bytes_total") == nonzero(traffic.sent)
    assert after.since(before, "adapter_response_body_bytes_total") == nonzero(traffic.received)
    assert after.since(before, "adapter_refusals_total") == {
        ("invalid_input",): 2,
        ("model_not_found",): 2,
        ("not_found",): 1,
        ("method_not_allowed",): 1,
        ("unauthenticated",): 3,
    }
    assert after.since(before, "adapter_authentications_total") == {
        ("key", "ok"): sum(traffic.requests.values()) - 3,
        ("none", "missing"): 1,
        ("key", "invalid"): 1,
        ("token", "invalid"): 1,
    }
    admitted = {("admitted",): sum(traffic.requests.values()) - 3}
    assert after.since(before, "adapter_rate_limit_decisions_total") == admitted

    assert after.since(before, "adapter_jobs_total") == {
        ("accepted",): 7,
        ("completed",): 5,
        ("failed",): 1,
        ("cancelled",): 1,
    }
    assert after.since(before, "adapter_job_failures_total") == {("inference_failed",): 1}
    assert after.since(before, "adapter_job_attempts_count") == {(): 6}
    assert after.since(before, "adapter_job_duration_seconds_count") == {(iris,): 5, ("sleepy",): 1}

    stages = after.since(before, "adapter_stage_duration_seconds_count")
    assert {key: value for key, value in stages.items() if key[0] == iris} == {
        (iris, "decode"): 5 + 4 + 6,
        (iris, "batch_wait"): 5 + 4 + 5,
        (iris, "inference"): 5 + 4 + 5,
        (iris, "encode"): 5 + 4 + 5,
        (iris, "job_wait"): 5,
    }
    assert after.since(before, "adapter_batch_requests_sum")[iris,] == 14
    assert after.since(before, "adapter_batch_rows_sum")[iris,] == 5 * 2 + 4 * 3 + 5
    # Neither a name that was made up nor a credential is anywhere to be read.
    labels = {value for _, pairs in after.samples for _, value in pairs}
    assert not [value for value in labels if "made-up" in value or "miaas_" in value or "jwt" in value]
    assert after["adapter_requests_in_flight"] == {}


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """While inside, the process does nothing."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_both_processes_count_and_what_a_killed_one_counted_stays(two: Up) -> None:
    before, traffic = scrape(two), Traffic(two)
    first, second = two.pids("api")
    with stopped(first):
        traffic.predict(times=3)
    with stopped(second):
        traffic.predict(times=4)

    def counted() -> dict[tuple[str, ...], float]:
        return scrape(two).since(before, "adapter_request_duration_seconds_count")

    eventually(lambda: counted() == nonzero(traffic.requests))
    restarts = before.one("adapter_process_restarts_total", role="serve") or 0
    os.kill(first, signal.SIGKILL)
    assert counted() == nonzero(traffic.requests)
    eventually(lambda: scrape(two).one("adapter_process_restarts_total", role="serve") == restarts + 1)
    eventually(lambda: scrape(two).one("adapter_processes", role="serve") == 2)
    assert counted() == nonzero(traffic.requests)
    traffic.predict(times=5)
    eventually(lambda: counted() == nonzero(traffic.requests))


def test_a_counter_never_falls_under_load_whichever_process_answers(two: Up) -> None:
    before, wrong, lock = scrape(two), [], threading.Lock()

    def load() -> None:
        traffic = Traffic(two)
        try:
            traffic.predict(times=40)
        except Exception as error:
            with lock:
                wrong.append(error)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    last, scrapes = before, 0
    while any(thread.is_alive() for thread in threads) or scrapes < 5:
        now = scrape(two)
        counters = now.counters()
        fallen = {sample for sample, value in last.counters().items() if counters.get(sample, 0) < value}
        assert fallen == set()
        last, scrapes = now, scrapes + 1
    assert wrong == []
    key = ("200", "v1", "sklearn-iris", "2")
    name = "adapter_request_duration_seconds_count"
    eventually(lambda: scrape(two).since(before, name) == {key: 160})


def test_requests_in_flight_are_those_that_are_being_worked_on(two: Up) -> None:
    with httpx.Client(base_url=two.facts["url"], headers=two.client.headers, timeout=60) as client:
        body = {"inputs": [1.5]}
        calls = [
            threading.Thread(target=lambda: client.post("/v1/models/sleepy:predict", json=body))
            for _ in range(3)
        ]
        for call in calls:
            call.start()
        eventually(lambda: scrape(two).one("adapter_requests_in_flight", contract="v1") == 3)
        for call in calls:
            call.join()
    eventually(lambda: scrape(two).one("adapter_requests_in_flight", contract="v1") == 0)


def queued(up: Up) -> float:
    """The jobs without a result."""
    return sum(scrape(up).one("adapter_queue_jobs", state=state) or 0 for state in ("waiting", "running"))


def test_a_stuck_worker_shows_and_so_does_what_waits_for_it(two: Up) -> None:
    with stopped(*two.pids("worker")):
        jobs = [two.submit("sklearn-iris", {"instances": [ROW]}).json()["request_id"] for _ in range(3)]
        eventually(lambda: scrape(two).one("adapter_processes", role="worker") == 0)
        # What it asked for before it was stopped is lent to it all the same.
        eventually(lambda: queued(two) == 3)
        age = scrape(two).one("adapter_oldest_job_age_seconds")
        assert age is not None
        assert 0 < age < 60
    assert {two.result(job)["status"] for job in jobs} == {"completed"}
    eventually(lambda: scrape(two).one("adapter_processes", role="worker") == 1)
    eventually(lambda: scrape(two).one("adapter_oldest_job_age_seconds") == 0)
    eventually(lambda: queued(two) == 0)


def test_triton_and_nats_are_down_while_they_are(two: Up) -> None:
    def up_of(dependency: str) -> float | None:
        return scrape(two).one("adapter_dependency_up", dependency=dependency)

    eventually(lambda: up_of("triton") == up_of("nats") == 1)
    with stopped(*two.pids("nats")):
        eventually(lambda: up_of("nats") == 0)
        assert up_of("triton") == 1
        eventually(lambda: scrape(two).one("adapter_queue_jobs", state="waiting") is None)
    eventually(lambda: up_of("nats") == 1)
    with stopped(*two.pids("triton")):
        eventually(lambda: up_of("triton") == 0)
        assert up_of("nats") == 1
    eventually(lambda: up_of("triton") == 1)


def test_the_worker_has_a_listener_of_its_own(two: Up) -> None:
    found = re.findall(
        r"worker started.*ops=([\d.]+:\d+)", (two.state_dir / "logs" / "worker.log").read_text()
    )
    url = f"http://{found[-1]}"
    assert httpx.get(f"{url}/livez").json() == {"status": "ok"}
    answer = httpx.get(f"{url}/readyz")
    assert answer.json() == {"status": "ok", "checks": {"triton": "ok", "nats": "ok"}}
    assert Scrape(url)["adapter_processes"] == {("serve",): 2, ("worker",): 1}


def test_promtool_has_nothing_to_say(two: Up) -> None:
    text = httpx.get(two.facts["ops_url"] + "/metrics").text
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_a_process_that_stops_says_so_and_finishes_what_it_has(two: Up, tmp_path: Path) -> None:
    facts = two.facts
    settings = {
        "TRITON_GRPC_URL": facts["triton_grpc"],
        "NATS_URL": facts["nats_url"],
        "KEYS_FILE": str(two.state_dir / "keys.json"),
        "SHUTDOWN_TIMEOUT_S": "10",
    }
    answers: list[httpx.Response] = []
    with serving(tmp_path, **settings) as api:
        eventually(lambda: httpx.get(f"{api.ops_url}/readyz").status_code == 200)

        def call() -> None:
            url, headers = f"{api.url}/v1/models/sleepy:predict", {"X-API-Key": facts["api_key"]}
            answers.append(httpx.post(url, json={"inputs": [2.0]}, headers=headers, timeout=30))

        thread = threading.Thread(target=call)
        thread.start()
        eventually(lambda: Scrape(api.ops_url).one("adapter_requests_in_flight", contract="v1") == 1)
        api.process.send_signal(signal.SIGTERM)

        def stopping() -> httpx.Response | None:
            answer = httpx.get(f"{api.ops_url}/readyz")
            return answer if answer.status_code == 503 else None

        assert eventually(stopping).json() == {"status": "stopping", "checks": {}}
        thread.join()
        assert answers[0].status_code == 200
        assert api.process.wait(10) == 0


def test_what_is_refused_before_any_contract_sees_it_is_counted(tmp_path: Path) -> None:
    heads = [
        b"no HTTP at all\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 40_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ",
    ]
    # The one before may not be gone when the next one comes.
    with serving(tmp_path, MAX_CONNECTIONS="2", HEADER_TIMEOUT_S="0.5") as api:
        url = httpx.URL(api.url)
        for head in heads:
            with socket.create_connection((url.host, url.port or 0), timeout=20) as connection:
                connection.sendall(head)
                while connection.recv(65536):
                    pass
        address = url.host, url.port or 0
        with socket.create_connection(address), socket.create_connection(address):
            answer = httpx.get(f"{api.url}/")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
        assert Scrape(api.ops_url)["adapter_refusals_total"] == {
            ("malformed_request",): 1,
            ("headers_too_large",): 1,
            ("request_timeout",): 1,
            ("too_many_connections",): 1,
        }
