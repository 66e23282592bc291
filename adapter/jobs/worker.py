"""The queue's consumer: one more thin front end of the data plane.

A job's way: message → inference → result saved (the first writer wins) → message acknowledged. Whatever
stops in between, the message stands, and another worker takes it.
"""

import asyncio
import signal
import time
from contextlib import suppress

import structlog
from prometheus_client import CollectorRegistry

from adapter.core.dataplane import DataPlane
from adapter.core.errors import (
    AdapterError,
    DeadlineExceeded,
    EngineUnavailable,
    ModelCrashed,
    ModelNotFound,
    PayloadTooLarge,
    Unavailable,
)
from adapter.core.metrics import Metrics
from adapter.core.ports import Delivery, JobQueue
from adapter.core.types import Job, JobError, JobResult
from adapter.jobs.jetstream import JetStreamQueue
from adapter.logs import configure_logs
from adapter.nats import NatsConnection
from adapter.security.tls import channel_credentials
from adapter.settings import Settings
from adapter.triton.client import TritonEngine

_log = structlog.get_logger()

_PAUSE_S = 0.5
_FETCH_S = 2.0
_MOST_DELAY_S = 10.0


class Worker:
    """Takes jobs while it has free slots and the engine answers, until `stop` is called."""

    def __init__(self, queue: JobQueue, dataplane: DataPlane, metrics: Metrics, settings: Settings) -> None:
        self._queue = queue
        self._dataplane = dataplane
        self._metrics = metrics
        self._settings = settings
        self._stopping = asyncio.Event()
        self._running: dict[asyncio.Task[None], Delivery] = {}

    def stop(self) -> None:
        """Take no more jobs; `run` then returns."""
        self._stopping.set()

    async def run(self) -> None:
        """Work until stopped; then let what runs finish in time, and give the rest back."""
        stopping = asyncio.create_task(self._stopping.wait())
        while not self._stopping.is_set():
            fetching = asyncio.create_task(self._fetch())
            await asyncio.wait([fetching, stopping], return_when=asyncio.FIRST_COMPLETED)
            if fetching.done():
                fetching.result()
            else:
                # What the server sends from here on comes again after ack_wait.
                fetching.cancel()
        await self._drain()

    async def _fetch(self) -> None:
        if len(self._running) >= self._settings.worker_slots:
            await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
        try:
            # A job must not be taken, and its attempt counted, while no engine can run it.
            await self._dataplane.models()
            free = self._settings.worker_slots - len(self._running)
            deliveries = await self._queue.fetch(free, _FETCH_S)
        except Unavailable as error:
            _log.debug("waiting", reason=error.message)
            await asyncio.sleep(_PAUSE_S)
            return
        for delivery in deliveries:
            task = asyncio.create_task(self._work(delivery))
            self._running[task] = delivery
            task.add_done_callback(self._running.pop)

    async def _work(self, delivery: Delivery) -> None:
        """Run one job to its end, or give it back."""
        keeping = asyncio.create_task(self._keep(delivery))
        try:
            result = await self._outcome(delivery)
            if result is None:
                self._metrics.jobs.labels("given_back").inc()
                await delivery.give_back(min(_PAUSE_S * 2**delivery.attempt, _MOST_DELAY_S))
            else:
                await self._finish(delivery, result)
        except AdapterError as error:
            # The message stands: it is delivered again after ack_wait.
            _log.warning("job not settled", job=delivery.job.id, reason=error.message)
        finally:
            keeping.cancel()

    async def _finish(self, delivery: Delivery, result: JobResult) -> None:
        try:
            await delivery.finish(result)
        except PayloadTooLarge as error:
            result = _failure(delivery.job, error.code, f"the result is too large: {error.message}")
            await delivery.finish(result)
        failed = isinstance(result.outcome, JobError)
        self._metrics.jobs.labels("failed" if failed else "completed").inc()

    async def _outcome(self, delivery: Delivery) -> JobResult | None:
        """The job's result, or None when another attempt may do better."""
        job = delivery.job
        try:
            left = job.deadline - time.time()
            if left <= 0:
                raise DeadlineExceeded("the deadline passed before the request could run")
            metadata = await self._dataplane.metadata(job.request.model_name, job.request.model_version)
            timeout_s = min(left, self._settings.infer_timeout_s)
            response = await self._dataplane.infer(metadata, job.request, timeout_s)
        except (EngineUnavailable, ModelCrashed, ModelNotFound) as error:
            # All was there when the job was accepted. It may come back, or the job itself took it down.
            if delivery.attempt < self._settings.job_attempts:
                return None
            return _failure(job, error.code, f"given up after {delivery.attempt} attempts: {error.message}")
        except Unavailable:
            return None
        except AdapterError as error:
            return _failure(job, error.code, error.message)
        return JobResult(response, job.form, job.batched)

    async def _keep(self, delivery: Delivery) -> None:
        """Tell the queue again and again that the job is being worked on."""
        while True:
            await asyncio.sleep(self._settings.ack_wait_s / 3)
            with suppress(AdapterError):
                await delivery.extend()

    async def _drain(self) -> None:
        if self._running:
            await asyncio.wait(self._running, timeout=self._settings.shutdown_timeout_s / 2)
        for task, delivery in list(self._running.items()):
            task.cancel()
            with suppress(AdapterError):
                await delivery.give_back(0)


def _failure(job: Job, code: str, message: str) -> JobResult:
    return JobResult(JobError(code, message), job.form, job.batched)


async def _main(settings: Settings) -> None:
    metrics = Metrics(CollectorRegistry())
    engine = TritonEngine(settings, channel_credentials(settings))
    connection = NatsConnection(settings)
    queue = JetStreamQueue(settings, connection)
    queue.open()
    connection.open()
    worker = Worker(queue, DataPlane(engine, metrics), metrics, settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, worker.stop)
    _log.info("worker started", triton=settings.triton_grpc_url, nats=settings.nats_url)
    try:
        await worker.run()
    finally:
        await queue.close()
        await connection.close()
        await engine.close()


def main(settings: Settings) -> None:
    """Run one worker process until SIGTERM or SIGINT."""
    configure_logs(settings)
    asyncio.run(_main(settings))
