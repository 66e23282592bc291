"""The JobQueue on NATS JetStream: a work queue of jobs, and a stream that holds one result per job.

Nothing is written for a transition: a job whose result stands is done, one whose message stands is being
worked on, and one with neither does not exist. Result and job are looked up again once before that is said,
because the worker saves the one before it strikes off the other.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import nats
import nats.errors
import structlog
from nats.aio.msg import Msg
from nats.js import JetStreamContext, api
from nats.js.errors import APIError, NotFoundError

from adapter.core.errors import AdapterError, JobNotFound, PayloadTooLarge, QueueFull, QueueUnavailable
from adapter.core.ports import Delivery
from adapter.core.types import Job, JobResult, JobStatus
from adapter.jobs import messages
from adapter.nats import NatsConnection
from adapter.settings import Settings

_log = structlog.get_logger()

_TIMEOUT_S = 2.0
_STREAM_STORE_FAILED = 10077
_WRONG_LAST_SEQUENCE = 10071
_STREAM_NAME_IN_USE = 10058
_FIRST_OF_SUBJECT = {"Nats-Expected-Last-Subject-Sequence": "0"}


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    """NATS's errors → ours, at this one boundary."""
    try:
        yield
    except nats.errors.MaxPayloadError as error:
        raise PayloadTooLarge("the request is larger than the queue takes") from error
    except APIError as error:
        if error.err_code == _STREAM_STORE_FAILED:
            raise QueueFull("the queue is full") from error
        raise QueueUnavailable(f"JetStream refused: {error.description}") from error
    except (nats.errors.Error, OSError, TimeoutError) as error:
        raise QueueUnavailable("NATS does not answer") from error


class JetStreamQueue:
    """`adapter.core.ports.JobQueue` over a connection that may come up later, and go away in between."""

    def __init__(self, settings: Settings, connection: NatsConnection) -> None:
        self._settings = settings
        self._nats = connection.client
        self._js: JetStreamContext = self._nats.jetstream(timeout=_TIMEOUT_S)
        self._pull: JetStreamContext.PullSubscription | None = None
        self._ready = False
        self._connection = connection

    def open(self) -> None:
        """Get ready whenever the connection, which is opened after this, comes up."""
        self._connection.use(self._prepare, self._lose)

    async def close(self) -> None:
        """Take and give nothing more; the connection is its owner's to close."""
        self._lose()

    async def ping(self) -> None:
        """Return when JetStream answers. Raises QueueUnavailable."""
        self._check_ready()
        async with _translated():
            await self._js.account_info()

    async def submit(self, job: Job) -> None:
        """See `JobQueue.submit`."""
        payload, headers = messages.job_message(job)
        await self._publish(messages.job_subject(job.client, job.id), payload, headers)

    async def status(self, client: str, job_id: str) -> JobStatus:
        """See `JobQueue.status`."""
        result_subject = messages.result_subject(client, job_id)
        if found := await self._last(messages.RESULTS_STREAM, result_subject):
            return messages.read_result(job_id, found.data or b"", found.headers or {})
        if waiting := await self._last(messages.JOBS_STREAM, messages.job_subject(client, job_id)):
            return messages.read_waiting(job_id, waiting.headers or {})
        if found := await self._last(messages.RESULTS_STREAM, result_subject):
            return messages.read_result(job_id, found.data or b"", found.headers or {})
        raise JobNotFound(f"no request with the id {job_id}")

    async def fetch(self, most: int, wait_s: float) -> Sequence[Delivery]:
        """See `JobQueue.fetch`."""
        self._check_ready()
        async with _translated():
            if self._pull is None:
                self._pull = await self._js.pull_subscribe_bind(messages.CONSUMER, messages.JOBS_STREAM)
            try:
                fetched = await self._pull.fetch(most, wait_s)
            except nats.errors.TimeoutError:
                return []
        deliveries = [JetStreamDelivery.of(self, message) for message in fetched]
        return [delivery for delivery in deliveries if delivery]

    async def save(self, job: Job, result: JobResult) -> None:
        """Store a result, unless the job has one. Raises QueueUnavailable, PayloadTooLarge."""
        payload, headers = messages.result_message(result, time.time())
        subject = messages.result_subject(job.client, job.id)
        await self._publish(subject, payload, {**headers, **_FIRST_OF_SUBJECT})

    async def _publish(self, subject: str, payload: bytes, headers: messages.Headers) -> None:
        """Store one message per subject; a second one is no error and changes nothing."""
        self._check_ready()
        # nats-py counts the payload alone; the server closes the connection over the sum.
        size = len(payload) + sum(len(key) + len(value) + 4 for key, value in headers.items()) + 16
        if size > self._nats.max_payload:
            raise PayloadTooLarge(f"{size} bytes are more than the queue takes ({self._nats.max_payload})")
        async with _translated():
            try:
                await self._js.publish(subject, payload, headers=headers)
            except APIError as error:
                if error.err_code == _WRONG_LAST_SEQUENCE or "per subject" in (error.description or ""):
                    return
                raise

    async def _last(self, stream: str, subject: str) -> api.RawStreamMsg | None:
        self._check_ready()
        async with _translated():
            try:
                return await self._js.get_last_msg(stream, subject, direct=True)
            except NotFoundError:
                return None

    def _check_ready(self) -> None:
        if not (self._ready and self._nats.is_connected):
            raise QueueUnavailable("NATS cannot be reached")

    async def _prepare(self) -> None:
        """Streams and consumer, also after a server came back with an empty store."""
        while not self._ready:
            try:
                async with _translated():
                    await _set_up(self._js, self._settings)
                self._ready = True
            except AdapterError as error:
                _log.warning("queue not ready", reason=error.message)
                await asyncio.sleep(0.5)

    def _lose(self) -> None:
        self._ready = False
        self._pull = None


class JetStreamDelivery:
    """`adapter.core.ports.Delivery` of one message."""

    def __init__(self, queue: JetStreamQueue, message: Msg, job: Job) -> None:
        self._queue = queue
        self._message = message
        self.job = job
        self.attempt = message.metadata.num_delivered or 1

    @classmethod
    def of(cls, queue: JetStreamQueue, message: Msg) -> "JetStreamDelivery | None":
        """The delivery, or None for a message that no version of ours wrote: it stays, the log says so."""
        try:
            return cls(queue, message, messages.read_job(message.data, message.headers or {}))
        except (ValueError, KeyError, IndexError) as error:
            _log.error("unreadable job", subject=message.subject, error=repr(error))
            return None

    async def extend(self) -> None:
        """See `Delivery.extend`."""
        async with _translated():
            await self._message.in_progress()

    async def finish(self, result: JobResult) -> None:
        """See `Delivery.finish`."""
        await self._queue.save(self.job, result)
        async with _translated():
            await self._message.ack_sync(timeout=_TIMEOUT_S)

    async def give_back(self, delay_s: float) -> None:
        """See `Delivery.give_back`."""
        async with _translated():
            await self._message.nak(delay=delay_s)


async def _set_up(js: JetStreamContext, settings: Settings) -> None:
    """Create streams and consumer, or bring them to the settings."""
    jobs = api.StreamConfig(
        name=messages.JOBS_STREAM,
        description="Inference requests that have no result yet.",
        subjects=["miaas.jobs.>"],
        retention=api.RetentionPolicy.WORK_QUEUE,
        discard=api.DiscardPolicy.NEW,
        discard_new_per_subject=True,
        max_msgs_per_subject=1,
        max_msgs=settings.queue_max_jobs,
        max_bytes=settings.queue_max_bytes,
        allow_direct=True,
        num_replicas=settings.queue_replicas,
        storage=api.StorageType.FILE,
    )
    results = api.StreamConfig(
        name=messages.RESULTS_STREAM,
        description="One immutable result per request, for a time.",
        subjects=["miaas.results.>"],
        discard=api.DiscardPolicy.NEW,
        discard_new_per_subject=True,
        max_msgs_per_subject=1,
        max_age=settings.result_retention_s,
        allow_direct=True,
        num_replicas=settings.queue_replicas,
        storage=api.StorageType.FILE,
    )
    consumer = api.ConsumerConfig(
        durable_name=messages.CONSUMER,
        ack_policy=api.AckPolicy.EXPLICIT,
        ack_wait=settings.ack_wait_s,
        max_deliver=-1,
        max_ack_pending=-1,
    )
    for config in (jobs, results):
        try:
            await js.add_stream(config)
        except APIError as error:
            if error.err_code != _STREAM_NAME_IN_USE:
                raise
            await js.update_stream(config)
    await js.add_consumer(messages.JOBS_STREAM, consumer)
