"""Results: written once, by whoever is first, and read."""

import time

from adapter.core import tracing
from adapter.core.errors import PayloadTooLarge
from adapter.core.types import Job, JobResult, JobStatus
from adapter.jobs import chunks, messages
from adapter.jobs.connection import EXPECTED, Connection, Stored, message_size
from adapter.jobs.streams import RESULTS


class Results:
    """The stream of results."""

    def __init__(self, connection: Connection, most_bytes: int) -> None:
        self._connection = connection
        self._most_bytes = most_bytes

    async def find(self, client: str, job_id: str, *, direct: bool) -> Stored | None:
        """The job's result as it is stored."""
        return await self._connection.last(RESULTS, messages.result_subject(client, job_id), direct=direct)

    async def read(self, client: str, job_id: str, found: Stored, *, direct: bool) -> JobStatus:
        """The status that a stored result stands for. Raises ChunksGone at the end of its retention."""
        payload = found.payload
        if pointer := found.headers.get(messages.CHUNKS):
            subject = messages.result_subject(client, job_id)
            payload = await chunks.get(self._connection, RESULTS, subject, pointer, direct=direct)
        return messages.read_result(job_id, payload, found.headers)

    async def save(self, job: Job, result: JobResult, input_pointer: str = "") -> bool:
        """Store the job's result, unless it has one, and announce it; returns whether it had none.

        `input_pointer` tells where the input is kept, so that an operator can queue a failed job again.
        Raises QueueUnavailable, and PayloadTooLarge for a result over the limit.
        """
        with tracing.span(f"publish {RESULTS}", "producer") as span:
            return await self._save(job, result, input_pointer, span)

    async def _save(self, job: Job, result: JobResult, input_pointer: str, span: tracing.Span) -> bool:
        payload, headers = messages.result_message(job, result, time.time())
        headers[EXPECTED] = str(job.replaces)
        subject = messages.result_subject(job.client, job.id)
        if span.recording:
            span.set(messages.span_attributes("send", RESULTS, job))
        if len(payload) > self._most_bytes:
            raise PayloadTooLarge(f"{len(payload)} bytes are more than {self._most_bytes}")
        if input_pointer:
            headers[messages.INPUT] = input_pointer
        if message_size(payload, headers) > self._connection.max_payload:
            headers[messages.CHUNKS] = await chunks.put(
                self._connection, RESULTS, subject, payload, chunks.new_name()
            )
            payload = b""
        sequence = await self._connection.publish(subject, payload, headers)
        if sequence is None and job.replaces and not await self.find(job.client, job.id, direct=False):
            # The failed result that this one replaces expired meanwhile.
            sequence = await self._connection.publish(subject, payload, {**headers, EXPECTED: "0"})
        await self._connection.send(messages.done_subject(job.client, job.id))
        return sequence is not None
