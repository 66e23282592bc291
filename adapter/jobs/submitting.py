"""Submitting: a job is stored once, or its client is told that it was not."""

import asyncio
import time
from collections import deque
from contextlib import suppress

import structlog

from adapter.core import tracing, work
from adapter.core.errors import AdapterError, QueueUnavailable
from adapter.core.instruments import Value
from adapter.core.types import IdempotencyKey, Job, Submission
from adapter.jobs import chunks, messages, notes
from adapter.jobs.connection import Connection, message_size
from adapter.jobs.ids import lane_of, new_id, submitted_at
from adapter.jobs.lanes import BY_CONSUMER, Bands, Lane, Place, priority_of
from adapter.jobs.pull import WAKE
from adapter.jobs.results import Results
from adapter.jobs.streams import INPUTS, JOBS

_log = structlog.get_logger()

_WAKE_EVERY_S = 0.005
_COUNT_EVERY_S = 1.0
_MOST_LEFT = 10_000
_NO_PLACES = ("miaas.jobs.none", "miaas.inputs.none")
"""In the streams of jobs and of inputs; nothing is ever stored there."""


class Submitter:
    """The API's side of the work queue; `accepted` counts the jobs that it stored."""

    def __init__(self, connection: Connection, results: Results, retention_s: float, accepted: Value) -> None:
        self._connection = connection
        self._results = results
        self._retention_s = retention_s
        self._accepted = accepted
        self._bands = Bands()
        self._fresh: set[Lane] = set()
        """Lanes that got jobs since they were last told of."""
        self._waking: dict[Lane, asyncio.Task[None]] = {}
        self._left: deque[tuple[str, str]] = deque()
        """What refused submissions left, or may have left, in order: the stream and the subjects to purge."""

    async def submit(self, submission: Submission) -> str:
        """See `JobQueue.submit`."""
        with tracing.span(f"publish {JOBS}", "producer") as span:
            return await self._submit(submission, span)

    async def _submit(self, submission: Submission, span: tracing.Span) -> str:
        now = time.time()
        place = self._bands.take(submission.client, priority_of(submission.priority))
        job = Job(
            id=new_id(place.lane, now),
            client=submission.client,
            request=submission.request,
            form=submission.form,
            batched=submission.batched,
            submitted=now,
            deadline=now + submission.timeout_s,
            correlation_id=at_hand.request_id if (at_hand := work.current()) else "",
            trace=tracing.current(),
        )
        if span.recording:
            span.set(messages.span_attributes("send", JOBS, job))
        try:
            if submission.idempotency is None:
                place.sequence = await self._store(job)
                return job.id
            return await self._submit_once(job, submission.idempotency, place)
        finally:
            if place.sequence is None:
                self._bands.leave(place)

    async def _submit_once(self, job: Job, key: IdempotencyKey, place: Place) -> str:
        first = await notes.claim(self._connection, job.client, key, job.id)
        if first != job.id and await self._stands(job.client, first):
            return first
        if time.time() > submitted_at(first) + self._retention_s:
            # It may have run, and be forgotten: its id must not come to mean another result.
            first = await notes.renew(self._connection, job.client, key, first, job.id)
        # Whoever claimed the key may have died before the job was stored: its id is good for us.
        place.sequence = await self._store(job._replace(id=first), {"Nats-Msg-Id": first})
        return first

    async def run(self) -> None:
        """Follow what reaches the workers, and take back what was refused; until cancelled."""
        while True:
            await asyncio.sleep(_COUNT_EVERY_S)
            try:
                if self._bands:
                    await self._count()
                await self._withdraw()
            except AdapterError as error:
                _log.debug("waiting", reason=error.message)

    async def _store(self, job: Job, extra: messages.Headers | None = None) -> int | None:
        """Publish the job; its sequence number, or None when it stands there already."""
        payload, headers = messages.job_message(job)
        headers |= extra or {}
        subject, unused = messages.job_subject(job.client, job.id), []
        if message_size(payload, headers) > self._connection.max_payload:
            inputs, name = messages.input_subject(job.client, job.id), chunks.new_name()
            unused = [(INPUTS, chunks.below(inputs, name))]
            try:
                headers[messages.CHUNKS] = await chunks.put(self._connection, INPUTS, inputs, payload, name)
            except BaseException:
                self._take_back(*unused)
                raise
            payload = b""
        try:
            sequence = await self._connection.publish(subject, payload, headers)
        except QueueUnavailable:
            # It may have been stored. Its client is told that it was not, so it must not run later; but who
            # sent a key may send it again, and then means this very job.
            if not extra:
                self._take_back((JOBS, subject), *unused)
            raise
        except AdapterError:
            self._take_back(*unused)
            raise
        if sequence is None:
            # Another with its key came first, with chunks of its own.
            self._take_back(*unused)
        else:
            self._accepted.inc()
        self._wake(lane_of(job.id))
        return sequence

    def _take_back(self, *places: tuple[str, str]) -> None:
        """Have these purged, one after the other, when NATS answers: a job goes before its chunks."""
        if len(self._left) < _MOST_LEFT:
            self._left += places

    async def _stands(self, client: str, job_id: str) -> bool:
        """Whether the job waits, runs or has a result."""
        subject = messages.job_subject(client, job_id)
        if await self._connection.last(JOBS, subject, direct=False):
            return True
        return await self._results.find(client, job_id, direct=False) is not None

    def _wake(self, lane: Lane) -> None:
        """Tell workers that the lane has jobs: at once, but of many that come together now and then only."""
        self._fresh.add(lane)
        if lane not in self._waking:
            self._waking[lane] = asyncio.create_task(self._keep_awake(lane))

    async def _keep_awake(self, lane: Lane) -> None:
        while lane in self._fresh:
            self._fresh.discard(lane)
            with suppress(QueueUnavailable):  # workers look by themselves as well
                await self._connection.send(f"{WAKE}.{lane.consumer}")
            await asyncio.sleep(_WAKE_EVERY_S)
        del self._waking[lane]

    async def _count(self) -> None:
        answer = await self._connection.api(f"CONSUMER.LIST.{JOBS}")
        for consumer in answer["consumers"]:
            if lane := BY_CONSUMER.get(consumer["name"]):
                self._bands.delivered(lane, consumer["delivered"]["stream_seq"])

    async def _withdraw(self) -> None:
        if not (left := len(self._left)):
            return
        # A stream that is behind may store only later what is to be purged now.
        for subject in _NO_PLACES:
            await self._connection.settle(subject)
        for _ in range(left):
            await self._connection.purge(*self._left[0])
            self._left.popleft()
