"""The queue's consumer: one more thin front end of the data plane.

A job's way: message → inference → result saved (the first writer wins) → message acknowledged. Whatever
stops in between, the message stands, and another worker takes it.
"""

import asyncio
import math
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog
import uvloop

from adapter.core.dataplane import DataPlane
from adapter.core.errors import AdapterError, PayloadTooLarge, Unavailable
from adapter.core.metrics import Metrics
from adapter.core.ports import Delivery, Engine, JobQueue
from adapter.core.types import JobError, JobResult
from adapter.jobs.jetstream import JetStreamQueue
from adapter.jobs.journal import Outcome, Turn
from adapter.jobs.runner import Retry, Runner, failure
from adapter.listener import address
from adapter.logs import configure_logs
from adapter.nats import NatsConnection
from adapter.operations import operations
from adapter.security.tls import channel_credentials, refuse_plain_text
from adapter.settings import Settings
from adapter.sockets import listen
from adapter.traces import exported_spans
from adapter.triton.client import TritonEngine

_log = structlog.get_logger()

_PAUSE_S = 0.5
_FETCH_S = 1.0


@dataclass(eq=False, slots=True)
class _Lent:
    """What a task works on, and since when: an input may take as long as it needs to be read."""

    delivery: Delivery
    since: float = math.inf


class Worker:
    """Takes jobs while it has free slots and the engine answers, until `stop` is called."""

    def __init__(self, queue: JobQueue, dataplane: DataPlane, metrics: Metrics, settings: Settings) -> None:
        self._queue = queue
        self._dataplane = dataplane
        self._metrics = metrics
        self._settings = settings
        self._runner = Runner(dataplane, settings.job_attempts, settings.infer_timeout_s)
        self._stopping = asyncio.Event()
        self._freed = asyncio.Event()
        self._running: dict[asyncio.Task[None], _Lent] = {}

    @property
    def stopping(self) -> bool:
        """Whether it takes no more jobs."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Take no more jobs; `run` then returns."""
        self._stopping.set()
        self._freed.set()

    async def run(self) -> None:
        """Work until stopped; then let what runs finish in time, and give the rest back."""
        keeping = asyncio.create_task(self._keep())
        try:
            while not self._stopping.is_set():
                await self._take()
            await self._drain()
        finally:
            keeping.cancel()

    async def _take(self) -> None:
        """Fill the free slots."""
        while len(self._running) >= self._settings.worker_slots and not self._stopping.is_set():
            self._freed.clear()
            await self._freed.wait()
        try:
            # A job must not be taken, and its attempt counted, while no engine can run it.
            await self._dataplane.models()
            free = self._settings.worker_slots - len(self._running)
            deliveries = await self._queue.fetch(free, _FETCH_S) if free > 0 else []
        except AdapterError as error:
            _log.debug("waiting", reason=error.message)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _PAUSE_S)
            return
        if self._stopping.is_set():
            await self._give_back(deliveries)
            return
        for delivery in deliveries:
            lent = _Lent(delivery)
            task = asyncio.create_task(self._turn(lent))
            self._running[task] = lent
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)
        self._freed.set()

    async def _turn(self, lent: _Lent) -> None:
        with Turn(lent.delivery, self._settings.access_log_sample) as turn:
            turn.outcome = await self._work(lent)

    async def _work(self, lent: _Lent) -> Outcome:
        """Run one job to its end, or give it back."""
        delivery, job = lent.delivery, lent.delivery.job
        if delivery.deliveries == 1 and not job.replaces:
            waited = self._metrics.stage_seconds.labels("job_wait", job.request.model_name)
            waited.observe(max(0.0, time.time() - job.submitted))
        try:
            # Its last worker may have died, or lost NATS, between the result and the acknowledgement.
            if delivery.deliveries > 1 and await delivery.settled():
                return "settled"
            outcome = await self._runner.read(delivery)
            if outcome is None:
                lent.since = time.monotonic()
                outcome = await self._runner.run(delivery)
            if isinstance(outcome, Retry):
                await delivery.give_back(outcome.delay_s, excused=outcome.excused)
                self._metrics.jobs.labels("given_back").inc()
                return "given_back"
            return await self._finish(delivery, outcome)
        except AdapterError as error:
            # The message stands: it is delivered again after ack_wait, which does not count against the job.
            _log.warning("job not settled", job=job.id, reason=error.message)
            with suppress(AdapterError):
                await delivery.give_back(self._settings.ack_wait_s, excused=True)
        except Exception:
            _log.exception("job not settled", job=job.id)
        return "unsettled"

    async def _finish(self, delivery: Delivery, result: JobResult) -> JobResult:
        """Save the result and strike off the job; a queue that is away is waited for, within reason.

        Another result is saved, and returned, in place of one that is too large.
        """
        until = time.monotonic() + self._settings.ack_wait_s
        while True:
            try:
                first = await delivery.finish(result)
                break
            except PayloadTooLarge as error:
                result = failure(delivery.job, error.code, f"the result is too large: {error.message}")
            except Unavailable:
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(_PAUSE_S)
        if first:
            self._count(delivery, result)
        return result

    def _count(self, delivery: Delivery, result: JobResult) -> None:
        metrics, job = self._metrics, delivery.job
        if isinstance(result.outcome, JobError):
            metrics.jobs.labels("failed").inc()
            metrics.job_failures.labels(result.outcome.code).inc()
        else:
            metrics.jobs.labels("completed").inc()
        metrics.job_attempts.labels().observe(delivery.attempt)
        if not job.replaces:
            # One that was queued again did not take all that time.
            seconds = metrics.job_seconds.labels(job.request.model_name)
            seconds.observe(max(0.0, time.time() - job.submitted))

    async def _keep(self) -> None:
        """Tell the queue again and again what is being worked on, up to a time that no job may take."""
        longest_s = self._settings.infer_timeout_s + self._settings.ack_wait_s
        while True:
            await asyncio.sleep(self._settings.ack_wait_s / 3)
            for lent in list(self._running.values()):
                if time.monotonic() - lent.since < longest_s:
                    with suppress(AdapterError):
                        await lent.delivery.extend()

    async def _drain(self) -> None:
        if self._running:
            await asyncio.wait(self._running, timeout=self._settings.shutdown_timeout_s / 2)
        left = list(self._running.items())
        for task, _ in left:
            task.cancel()
        await self._give_back([lent.delivery for _, lent in left])

    async def _give_back(self, deliveries: Sequence[Delivery]) -> None:
        """Let others have at once what this worker will not run."""
        calls = (delivery.give_back(0, excused=True) for delivery in deliveries)
        for outcome in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(outcome, Exception):
                _log.warning("job not given back", reason=str(outcome))
            else:
                self._metrics.jobs.labels("given_back").inc()


@dataclass(frozen=True)
class _Services:
    """What a worker process runs on."""

    metrics: Metrics
    engine: Engine
    queue: JobQueue


async def _main(settings: Settings, ops: socket.socket) -> None:
    metrics = Metrics()
    engine = TritonEngine(settings, metrics, channel_credentials(settings))
    connection = NatsConnection(settings)
    queue = JetStreamQueue(settings, connection, metrics)
    queue.open()
    connection.open()
    worker = Worker(queue, DataPlane(engine), metrics, settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, worker.stop)
    services = _Services(metrics, engine, queue)
    try:
        async with operations(settings, "worker", services, ops, lambda: worker.stopping):
            _log.info(
                "worker started", triton=settings.triton_grpc_url, nats=settings.nats_url, ops=address(ops)
            )
            await worker.run()
    finally:
        await queue.close()
        await connection.close()
        await engine.close()


def main(settings: Settings) -> None:
    """Run one worker process until SIGTERM or SIGINT. Raises ListenError and TlsError."""
    configure_logs(settings)
    with (
        exported_spans("miaas-adapter-worker"),
        listen(settings.ops_host, settings.ops_port, "--ops-port") as ops,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        refuse_plain_text(ops.getsockname()[0], settings.tls_cert_file is not None, settings)
        runner.run(_main(settings, ops))
