"""Ending a job that waits, or that a model works on: its client finds it failed."""

from adapter.core.types import JobError, JobResult
from adapter.jobs import messages
from adapter.jobs.connection import Connection, Stored
from adapter.jobs.results import Results
from adapter.jobs.streams import INPUTS, JOBS


async def cancel(connection: Connection, results: Results, waiting: Stored, message: str) -> bool:
    """End the job as cancelled, with this message; whether it had no result. Raises QueueUnavailable.

    Where it had one, it may have been queued again since it was seen: that is another message, and its input
    is kept.
    """
    job = messages.read_job_headers(waiting.headers)
    error = JobError(messages.CANCELLED, message)
    ended = await results.save(job, JobResult(error, job.form, job.batched))
    await connection.purge(JOBS, waiting.subject, up_to=waiting.sequence)
    if ended:
        await connection.purge(INPUTS, f"{messages.input_subject(job.client, job.id)}.>")
    return ended
