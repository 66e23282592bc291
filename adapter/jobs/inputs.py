"""Inputs that stand beside their job: those too large for its message, and those of jobs that failed."""

import structlog

from adapter.core.errors import AdapterError
from adapter.core.types import Job, JobError, JobResult
from adapter.core.wire import encode_request
from adapter.jobs import chunks, messages
from adapter.jobs.connection import Connection
from adapter.jobs.streams import INPUTS
from adapter.settings import Settings

_log = structlog.get_logger()


class Inputs:
    """A worker's side of the stream of inputs."""

    def __init__(self, connection: Connection, settings: Settings) -> None:
        self._connection = connection
        self._direct = settings.queue_replicas == 1
        # A job may be queued again as long as its result stands, and then has to wait its turn.
        self._keep_s = settings.result_retention_s + settings.job_timeout_s

    async def get(self, job: Job, pointer: str) -> bytes:
        """The input that the pointer points to. Raises ChunksGone, Damaged, QueueUnavailable."""
        subject = messages.input_subject(job.client, job.id)
        return await chunks.get(self._connection, INPUTS, subject, pointer, direct=self._direct)

    async def keep(self, job: Job) -> str:
        """Store the input once more, for as long as the job may be queued again; the pointer.

        It is empty where that fails: the client must learn of the job's failure all the same.
        """
        subject, payload = messages.input_subject(job.client, job.id), encode_request(job.request)
        try:
            return await chunks.put(
                self._connection, INPUTS, subject, payload, chunks.new_name(), self._keep_s
            )
        except AdapterError as error:
            _log.warning("input not kept", job=job.id, reason=error.message)
            return ""

    async def forget(self, job: Job, pointer: str = "") -> None:
        """Delete what the pointer points to, or all inputs of the job. Raises QueueUnavailable."""
        subject = messages.input_subject(job.client, job.id)
        await self._connection.purge(INPUTS, chunks.below(subject, pointer) if pointer else f"{subject}.>")


def wanted_again(result: JobResult) -> bool:
    """Whether the job may be queued again."""
    return isinstance(result.outcome, JobError) and result.outcome.code != messages.CANCELLED
