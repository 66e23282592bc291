"""The gauges that are looked after in the background, on a fake engine and a fake queue."""

import asyncio
import platform
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from adapter import __version__, monitor
from adapter.core.errors import EngineUnavailable, QueueUnavailable
from adapter.core.metrics import Metrics
from adapter.core.types import InferRequest, Submission
from adapter.monitor import Monitor
from tests.fakes import FakeEngine, FakeQueue


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(monitor, "LOOK_AGAIN_S", 0.01)


class Watched:
    """A monitor, and what it looks at."""

    def __init__(self, *, leads: bool = True) -> None:
        self.metrics, self.engine, self.queue = Metrics(), FakeEngine(), FakeQueue()
        self.expires: float | None = None
        self.stopping = False
        self.leads = leads
        self._monitor = Monitor(
            self.metrics,
            "worker",
            self.engine,
            self.queue,
            lambda: self.leads,
            {"server": lambda: self.expires},
            lambda: self.stopping,
        )

    def up(self) -> dict[str, float]:
        return {values[0]: series.value for values, series in self.metrics.dependency_up.series.items()}

    def servers(self) -> dict[str, float]:
        return {values[0]: each.value for values, each in self.metrics.triton_server_up.series.items()}

    def waiting(self) -> float | None:
        series = self.metrics.queue_jobs.series.get(("waiting",))
        return series.value if series else None

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Watched"]:
        task = asyncio.create_task(self._monitor.run())
        try:
            yield self
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def soon(look: Callable[[], bool]) -> None:
    """Fails when it does not come true in time."""
    async with asyncio.timeout(10):
        while not look():  # noqa: ASYNC110 - a gauge is no Event
            await asyncio.sleep(0.002)


def submission() -> Submission:
    return Submission("alice", InferRequest("m", "", ()), "predictions", True, 60.0)


def test_what_does_not_answer_is_down_until_it_answers_again() -> None:
    async def scenario() -> None:
        async with Watched().running() as watched:
            await soon(lambda: watched.up() == {"triton": 1, "nats": 1})
            watched.engine.fault = EngineUnavailable("away")
            await soon(lambda: watched.up() == {"triton": 0, "nats": 1})
            watched.engine.fault, watched.queue.fault = None, QueueUnavailable("away")
            await soon(lambda: watched.up() == {"triton": 1, "nats": 0})
            watched.queue.fault = None
            await soon(lambda: watched.up() == {"triton": 1, "nats": 1})

    asyncio.run(scenario())


def test_the_queues_length_is_told_while_it_is_known() -> None:
    async def scenario() -> None:
        async with Watched().running() as watched:
            await soon(lambda: watched.waiting() == 0)
            assert watched.metrics.oldest_job_seconds.labels().value < 1
            await watched.queue.submit(submission())
            [job_id] = watched.queue.jobs
            before = time.time()
            await soon(lambda: watched.waiting() == 1)
            assert watched.metrics.queue_jobs.labels("running").value == 0
            await soon(lambda: watched.metrics.oldest_job_seconds.labels().value > 0.05)
            age = watched.metrics.oldest_job_seconds.labels().value
            assert age <= time.time() - watched.queue.jobs[job_id].submitted
            assert age <= time.time() - before + 1
            watched.queue.fault = QueueUnavailable("away")
            await soon(lambda: watched.waiting() is None)
            assert watched.metrics.oldest_job_seconds.series == {}

    asyncio.run(scenario())


def test_who_does_not_lead_asks_the_queue_nothing() -> None:
    async def scenario() -> None:
        async with Watched(leads=False).running() as watched:
            await soon(lambda: watched.up() == {"triton": 1, "nats": 1})
            await asyncio.sleep(0)
            assert watched.waiting() is None

    asyncio.run(scenario())


def test_who_leads_no_more_tells_nothing_of_the_queue() -> None:
    """What it told last would stand for ever beside what its successor tells."""

    async def scenario() -> None:
        async with Watched().running() as watched:
            await soon(lambda: watched.waiting() == 0)
            watched.leads = False
            await soon(lambda: watched.waiting() is None)
            assert watched.metrics.oldest_job_seconds.series == {}
            watched.leads = True
            await soon(lambda: watched.waiting() == 0)

    asyncio.run(scenario())


def test_the_process_and_its_certificate() -> None:
    async def scenario() -> None:
        async with Watched().running() as watched:
            metrics = watched.metrics
            assert metrics.processes.labels("worker").value == 1
            [build] = metrics.build_info.series
            assert build[:2] == (__version__, platform.python_version())
            used = metrics.process_cpu_seconds.labels("worker")
            await soon(lambda: 0 < used.value <= time.process_time())
            assert 10_000_000 < metrics.process_memory.labels("worker").value < 10_000_000_000
            assert metrics.certificate_expiry.series == {}
            watched.expires = 1_900_000_000.0
            await soon(lambda: metrics.certificate_expiry.labels("server").value == 1_900_000_000.0)

    asyncio.run(scenario())


def test_an_unexpected_error_ends_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    async def scenario() -> None:
        async with Watched().running() as watched:
            await soon(lambda: watched.waiting() == 0)
            watched.queue.fault = RuntimeError("odd")
            await soon(lambda: "the monitor failed" in capsys.readouterr().out)
            watched.queue.fault = EngineUnavailable("away")
            await soon(lambda: watched.up()["nats"] == 0)

    asyncio.run(scenario())


def test_a_process_that_is_stopping_asks_nobody_any_more() -> None:
    async def scenario() -> None:
        watched = Watched()
        watched.stopping = True
        await watched._monitor.run()
        assert watched.up() == {}

    asyncio.run(scenario())


def test_each_of_several_tritons_is_told_of_as_long_as_there_is_one() -> None:
    async def scenario() -> None:
        async with Watched().running() as watched:
            await soon(lambda: watched.up() == {"triton": 1, "nats": 1})
            assert watched.servers() == {}
            watched.engine.told_of_servers = {"a:1": "ok", "b:1": "does not answer"}
            await soon(lambda: watched.servers() == {"a:1": 1, "b:1": 0})
            watched.engine.told_of_servers = {"a:1": "ok"}
            await soon(lambda: watched.servers() == {"a:1": 1})

    asyncio.run(scenario())
