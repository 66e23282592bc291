"""A worker whose queue does not take results: what was done well does not count against the job."""

import asyncio
import time
from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from adapter.core.dataplane import DataPlane
from adapter.core.errors import QueueUnavailable
from adapter.core.metrics import Metrics
from adapter.core.ports import Delivery
from adapter.core.types import InferRequest, Job, JobError, JobResult, Tensor
from adapter.jobs.ids import new_id
from adapter.jobs.lanes import LANES
from adapter.jobs.worker import Worker
from adapter.settings import Settings
from tests.fakes import FakeEngine, FakeQueue, model


class Lent:
    """A job of a queue that stores no result."""

    def __init__(self) -> None:
        now = time.time()
        request = InferRequest("m", "", (Tensor("x", "FP32", (1, 4), bytes(16)),))
        self.job = Job(new_id(LANES[0], now), "alice", request, "names", False, now, now + 60)
        self.deliveries = self.attempt = 1
        self.lost: JobError | None = None
        self.tried = 0
        self.given_back: list[tuple[float, bool]] = []
        self.returned = asyncio.Event()

    async def read(self) -> None: ...

    async def extend(self) -> None: ...

    async def settled(self) -> bool:
        return False

    async def finish(self, result: JobResult) -> bool:
        assert not isinstance(result.outcome, JobError)
        self.tried += 1
        raise QueueUnavailable("no space is left for results")

    async def give_back(self, delay_s: float, *, excused: bool) -> None:
        self.given_back.append((delay_s, excused))
        self.returned.set()


class Queue(FakeQueue):
    """Lends one job."""

    def __init__(self, lent: Lent) -> None:
        super().__init__()
        self.lent = [lent]

    async def fetch(self, most: int, wait_s: float) -> Sequence[Delivery]:
        await asyncio.sleep(0)
        return [self.lent.pop()] if self.lent else []


def test_a_result_that_cannot_be_stored_costs_no_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapter.jobs.worker._PAUSE_S", 0.1)

    async def main() -> Lent:
        lent = Lent()
        worker = Worker(Queue(lent), DataPlane(FakeEngine(model())), Metrics(), Settings(ack_wait_s=1))
        running = asyncio.create_task(worker.run())
        await lent.returned.wait()
        worker.stop()
        await running
        return lent

    with capture_logs() as lines:
        lent = asyncio.run(main())
    assert lent.tried > 1
    assert lent.given_back == [(1.0, True)]
    [warning] = [line for line in lines if line["log_level"] == "warning"]
    assert warning["reason"] == "no space is left for results"
