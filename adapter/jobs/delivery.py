"""One message lent to this worker: finished, or given back."""

import structlog
from nats.aio.msg import Msg

from adapter.core.types import Job, JobError, JobResult
from adapter.jobs import backoff, messages, notes
from adapter.jobs.chunks import ChunksGone
from adapter.jobs.connection import Connection
from adapter.jobs.inputs import Inputs, wanted_again
from adapter.jobs.results import Results

_log = structlog.get_logger()

_NANOSECONDS = 1_000_000_000


class JetStreamDelivery:
    """`adapter.core.ports.Delivery`."""

    def __init__(
        self,
        connection: Connection,
        results: Results,
        inputs: Inputs,
        message: Msg,
        job: Job,
        *,
        pointer: str,
        excused: int,
        lost: JobError | None,
    ) -> None:
        self._connection = connection
        self._results = results
        self._inputs = inputs
        self._ack_subject = message.reply
        self._pointer = pointer
        self.job = job
        self.deliveries = message.metadata.num_delivered or 1
        self.attempt = self.deliveries - excused
        self.lost = lost
        self._saved = False
        self._kept = ""

    @classmethod
    async def of(
        cls, connection: Connection, results: Results, inputs: Inputs, message: Msg
    ) -> "JetStreamDelivery | None":
        """The delivery, or None for a message that is none of ours: it stays, and the log says so.

        Raises QueueUnavailable when the rest of it cannot be read.
        """
        headers, payload, lost = message.headers or {}, message.data, None
        pointer = headers.get(messages.CHUNKS, "")
        try:
            if pointer:
                job = messages.read_job_headers(headers)
                payload = await inputs.get(job, pointer)
            job = messages.read_job(payload, headers)
        except ChunksGone:
            lost = JobError("internal", "the request's input is not there any more")
        except (ValueError, KeyError, IndexError) as error:
            _log.error("unreadable job", subject=message.subject, error=repr(error))
            return None
        first = message.metadata.num_delivered == 1
        excused = 0 if first else await notes.excused(connection, job.id)
        return cls(connection, results, inputs, message, job, pointer=pointer, excused=excused, lost=lost)

    async def extend(self) -> None:
        """See `Delivery.extend`."""
        await self._connection.send(self._ack_subject, b"+WPI")

    async def settled(self) -> bool:
        """See `Delivery.settled`."""
        found = await self._results.find(self.job.client, self.job.id, direct=False)
        if found is None or found.sequence == self.job.replaces:
            return False
        await self._strike_off()
        if self._pointer and self._pointer != found.headers.get(messages.INPUT):
            await self._inputs.forget(self.job, self._pointer)
        return True

    async def finish(self, result: JobResult) -> bool:
        """See `Delivery.finish`."""
        # Where striking it off fails, all of this is done again.
        wanted = wanted_again(result)
        if wanted and not self.lost:
            self._kept = self._kept or await self._inputs.keep(self.job) or self._pointer
        self._saved |= await self._results.save(self.job, result, self._kept if wanted else "")
        await self._strike_off()
        if self._pointer and self._pointer != self._kept:
            # If another's result stands, an input that is kept may belong to it.
            everything = self._saved and not wanted
            await self._inputs.forget(self.job, "" if everything else self._pointer)
        return self._saved

    async def give_back(self, delay_s: float, *, excused: bool) -> None:
        """See `Delivery.give_back`."""
        await _give_back(self._connection, self._ack_subject, self.job.id, delay_s, excused=excused)

    async def _strike_off(self) -> None:
        await self._connection.request(self._ack_subject)


async def give_back_unread(connection: Connection, message: Msg) -> None:
    """Let a job that could not be read come again: that was no attempt. Raises QueueUnavailable."""
    delay_s = backoff.delay_s(message.metadata.num_delivered or 1)
    job_id = message.subject.rpartition(".")[2]
    await _give_back(connection, message.reply, job_id, delay_s, excused=True)


async def _give_back(
    connection: Connection, ack_subject: str, job_id: str, delay_s: float, *, excused: bool
) -> None:
    if excused:
        await notes.excuse(connection, job_id)
    delay = b'{"delay":%d}' % int(delay_s * _NANOSECONDS)
    await connection.send(ack_subject, b"-NAK " + delay if delay_s else b"-NAK")
