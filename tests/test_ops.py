"""The operations listener's three answers."""

import asyncio
import time
from collections.abc import Callable

import httpx
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.exposition import generate_latest

from adapter.core.errors import EngineUnavailable, QueueUnavailable
from adapter.core.metrics import Metrics
from adapter.monitor import checks
from adapter.ops import create_ops_app
from tests.fakes import FakeEngine, FakeQueue

SERIES = 5000
BOUNDS = Metrics().request_seconds.bounds


class Process:
    """A process that can be asked."""

    def __init__(self) -> None:
        self.engine, self.queue, self.metrics = FakeEngine(), FakeQueue(), Metrics()
        self.stopping = False

    def get(self, path: str, **headers: str) -> httpx.Response:
        return asyncio.run(self.ask(path, **headers))

    async def ask(self, path: str, **headers: str) -> httpx.Response:
        async def total() -> Metrics:
            return self.metrics

        app = create_ops_app(
            checks(self.engine, self.queue), self.engine.servers, lambda: self.stopping, total
        )
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://ops") as client:
            return await client.get(path, headers=headers)


def test_ready_while_triton_and_nats_answer() -> None:
    answer = Process().get("/readyz")
    assert answer.status_code == 200
    assert answer.json() == {"status": "ok", "checks": {"triton": "ok", "nats": "ok"}}


def test_each_of_several_tritons_is_named() -> None:
    process = Process()
    process.engine.told_of_servers = {"a:8001": "ok", "b:8001": "cannot be reached"}
    answer = process.get("/readyz")
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "ok",
        "checks": {"triton": "ok", "nats": "ok"},
        "servers": {"a:8001": "ok", "b:8001": "cannot be reached"},
    }


def test_each_check_says_what_is_wrong() -> None:
    process = Process()
    process.queue.fault = QueueUnavailable("NATS cannot be reached")
    answer = process.get("/readyz")
    assert answer.status_code == 503
    assert answer.json() == {
        "status": "unavailable",
        "checks": {"triton": "ok", "nats": "NATS cannot be reached"},
    }
    process.engine.fault = EngineUnavailable("Triton cannot be reached")
    assert process.get("/readyz").json()["checks"] == {
        "triton": "Triton cannot be reached",
        "nats": "NATS cannot be reached",
    }


def test_a_process_that_is_stopping_is_alive_and_not_ready() -> None:
    process = Process()
    process.stopping = True
    assert process.get("/livez").status_code == 200
    answer = process.get("/readyz")
    assert (answer.status_code, answer.json()) == (503, {"status": "stopping", "checks": {}})


def test_openmetrics_is_for_those_who_ask_for_it() -> None:
    process = Process()
    prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
    answer = process.get("/metrics", accept=prometheus)
    assert answer.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert answer.text.endswith("# EOF\n")
    answer = process.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "# EOF" not in answer.text


def turns_of_others(process: Process) -> int:
    """How often others had their turn during a scrape."""

    async def scenario() -> int:
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(others())
        answer = await process.ask("/metrics")
        task.cancel()
        assert answer.status_code == 200
        return turns

    return asyncio.run(scenario())


def large() -> Process:
    """A process with many series of its largest histogram."""
    process = Process()
    for number in range(SERIES):
        process.metrics.request_seconds.labels("v1", f"m{number}", "1", "200").observe(0.01)
    return process


def test_a_large_scrape_lets_others_go_first() -> None:
    """Counted in turns: how long one takes depends on what else the machine does."""
    assert turns_of_others(large()) > turns_of_others(Process()) + 10


def test_a_large_scrape_takes_a_fraction_of_what_prometheus_clients_takes() -> None:
    process, registry = large(), CollectorRegistry()
    theirs = Histogram("h", "", ["a", "b", "c", "d"], buckets=BOUNDS, registry=registry)
    for number in range(SERIES):
        theirs.labels("v1", f"m{number}", "1", "200").observe(0.01)
    ours_s, theirs_s = [], []
    for _ in range(3):
        ours_s.append(cpu_s(lambda: process.get("/metrics")))
        theirs_s.append(cpu_s(lambda: generate_latest(registry)))
    assert min(ours_s) * 4 < min(theirs_s)


def cpu_s(call: Callable[[], object]) -> float:
    started = time.thread_time()
    call()
    return time.thread_time() - started
