"""The JobQueue on NATS JetStream: a work queue of jobs, and a stream that holds one result per job.

Nothing is written for a transition: a job whose result stands is done, one whose message stands is being
worked on, and one with neither does not exist. The worker saves the result before it strikes off the job, so
whoever finds neither looks at the job and then at the result once more, where the streams' leaders are.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress

import structlog

from adapter.core.errors import JobNotFound, QueueUnavailable
from adapter.core.metrics import Metrics
from adapter.core.types import Backlog, JobPage, JobStatus, Submission
from adapter.jobs import cancelling, listing, messages
from adapter.jobs.backlog import backlog
from adapter.jobs.chunks import ChunksGone
from adapter.jobs.connection import Connection, Stored
from adapter.jobs.delivery import JetStreamDelivery
from adapter.jobs.inputs import Inputs
from adapter.jobs.pull import Puller
from adapter.jobs.results import Results
from adapter.jobs.streams import JOBS, set_up
from adapter.jobs.submitting import Submitter
from adapter.jobs.waiting import Notes, arrived_within
from adapter.nats import NatsConnection
from adapter.settings import Settings

_log = structlog.get_logger()

_LOOK_AGAIN_S = 2.0


class JetStreamQueue:
    """`adapter.core.ports.JobQueue` over a connection that may come up later, and go away in between."""

    def __init__(self, settings: Settings, nats: NatsConnection, metrics: Metrics) -> None:
        self._settings = settings
        self._connection = Connection(nats, self._set_up)
        self._results = Results(self._connection, settings.result_max_bytes)
        self._inputs = Inputs(self._connection, settings)
        accepted = metrics.jobs.labels("accepted")
        self._submitter = Submitter(self._connection, self._results, settings.result_retention_s, accepted)
        self._puller = Puller(self._connection)
        self._notes = Notes(self._connection)
        self._following: asyncio.Task[None] | None = None
        # Of a stream with one copy any answer is the leader's. Another copy may be behind, and deny what its
        # client has seen.
        self._direct = settings.queue_replicas == 1

    def open(self) -> None:
        """Get ready whenever the connection, which is opened after this, comes up."""
        self._connection.use()
        self._following = asyncio.create_task(self._submitter.run())

    async def close(self) -> None:
        """Take and give nothing more; the connection is its owner's to close."""
        if self._following is not None:
            self._following.cancel()
            with suppress(asyncio.CancelledError):
                await self._following
        self._connection.lose()

    async def ping(self) -> None:
        """See `JobQueue.ping`."""
        if not self._connection.ready:
            raise QueueUnavailable("NATS cannot be reached")
        await self._connection.api("INFO")

    async def backlog(self) -> Backlog:
        """See `JobQueue.backlog`."""
        if not self._connection.ready:
            raise QueueUnavailable("NATS cannot be reached")
        return await backlog(self._connection)

    async def submit(self, submission: Submission) -> str:
        """See `JobQueue.submit`."""
        return await self._submitter.submit(submission)

    async def status(self, client: str, job_id: str, wait_s: float = 0) -> JobStatus:
        """See `JobQueue.status`."""
        status = await self._status(client, job_id)
        if wait_s <= 0 or status.result is not None:
            return status
        until = time.monotonic() + wait_s
        async with self._notes.expected(messages.done_subject(client, job_id)) as done:
            while True:
                status = await self._status(client, job_id)
                left = until - time.monotonic()
                if status.result is not None or left <= 0:
                    return status
                if await arrived_within(done, min(left, _LOOK_AGAIN_S)):
                    done.clear()

    async def cancel(self, client: str, job_id: str) -> tuple[JobStatus, bool]:
        """See `JobQueue.cancel`."""
        subject, ended = messages.job_subject(client, job_id), False
        if waiting := await self._connection.last(JOBS, subject, direct=False):
            ended = await cancelling.cancel(
                self._connection, self._results, waiting, "the request was cancelled"
            )
        return await self._status(client, job_id), ended

    async def page(self, client: str, limit: int, before: str = "") -> JobPage:
        """See `JobQueue.page`."""
        ids = await listing.newest(self._connection, client, limit + 1, before)
        found = await asyncio.gather(*(self._find(client, job_id) for job_id in ids[:limit]))
        lines = (
            messages.read_line(job_id, stored.headers)
            for job_id, stored in zip(ids, found, strict=False)
            if stored is not None
        )
        return JobPage(tuple(lines), next=ids[limit - 1] if len(ids) > limit else "")

    async def fetch(self, most: int, wait_s: float) -> Sequence[JetStreamDelivery]:
        """See `JobQueue.fetch`."""
        if not self._connection.ready:
            raise QueueUnavailable("NATS cannot be reached")
        fetched = await self._puller.fetch(most, wait_s)
        parts = self._connection, self._results, self._inputs
        lent = (JetStreamDelivery.of(*parts, message) for message in fetched)
        return [delivery for delivery in lent if delivery is not None]

    async def _find(self, client: str, job_id: str) -> Stored | None:
        """The job's result, or else the job, or neither."""
        subject = messages.job_subject(client, job_id)
        return (
            await self._results.find(client, job_id, direct=self._direct)
            or await self._connection.last(JOBS, subject, direct=self._direct)
            or await self._results.find(client, job_id, direct=False)
        )

    async def _status(self, client: str, job_id: str) -> JobStatus:
        found = await self._find(client, job_id)
        if found is not None and messages.STATE not in found.headers:
            return messages.read_waiting(job_id, found.headers)
        with suppress(ChunksGone):
            if found is not None:
                return await self._results.read(client, job_id, found, direct=self._direct)
        raise JobNotFound(f"no request with the id {job_id}")

    async def _set_up(self) -> None:
        await set_up(self._connection, self._settings)
