"""One message lent to this worker: finished, or given back."""

import structlog
from nats.aio.msg import Msg

from adapter.core.types import Job, JobError, JobResult
from adapter.jobs import chunks, messages, notes
from adapter.jobs.connection import Connection
from adapter.jobs.results import Results
from adapter.jobs.streams import INPUTS

_log = structlog.get_logger()

_NANOSECONDS = 1_000_000_000


class JetStreamDelivery:
    """`adapter.core.ports.Delivery`."""

    def __init__(
        self,
        connection: Connection,
        results: Results,
        message: Msg,
        job: Job,
        *,
        pointer: str,
        excused: int,
        lost: JobError | None,
    ) -> None:
        self._connection = connection
        self._results = results
        self._ack_subject = message.reply
        self._pointer = pointer
        self.job = job
        self.deliveries = message.metadata.num_delivered or 1
        self.attempt = self.deliveries - excused
        self.lost = lost
        self._saved = False

    @classmethod
    async def of(
        cls, connection: Connection, results: Results, message: Msg, *, direct: bool
    ) -> "JetStreamDelivery | None":
        """The delivery, or None for a message that is none of ours: it stays, and the log says so.

        Raises QueueUnavailable when the rest of it cannot be read.
        """
        headers, payload, lost = message.headers or {}, message.data, None
        pointer = headers.get(messages.CHUNKS, "")
        try:
            if pointer:
                job = messages.read_job_headers(headers)
                subject = messages.input_subject(job.client, job.id)
                payload = await chunks.get(connection, INPUTS, subject, pointer, direct=direct)
            job = messages.read_job(payload, headers)
        except chunks.ChunksGone:
            lost = JobError("internal", "the request's input is not there any more")
        except (ValueError, KeyError, IndexError) as error:
            _log.error("unreadable job", subject=message.subject, error=repr(error))
            return None
        first = message.metadata.num_delivered == 1
        excused = 0 if first else await notes.excused(connection, job.id)
        return cls(connection, results, message, job, pointer=pointer, excused=excused, lost=lost)

    async def extend(self) -> None:
        """See `Delivery.extend`."""
        await self._connection.send(self._ack_subject, b"+WPI")

    async def settled(self) -> bool:
        """See `Delivery.settled`."""
        found = await self._results.find(self.job.client, self.job.id, direct=False)
        if found is None or found.sequence == self.job.replaces:
            return False
        await self._strike_off()
        return True

    async def finish(self, result: JobResult) -> bool:
        """See `Delivery.finish`."""
        # Where striking it off fails, all of this is done again.
        self._saved |= await self._results.save(self.job, result, self._pointer)
        await self._strike_off()
        if self._pointer and not self._results.keeps_input(result):
            subject = messages.input_subject(self.job.client, self.job.id)
            await self._connection.purge(INPUTS, f"{subject}.>")
        return self._saved

    async def give_back(self, delay_s: float, *, excused: bool) -> None:
        """See `Delivery.give_back`."""
        if excused:
            await notes.excuse(self._connection, self.job.id)
        delay = b'{"delay":%d}' % int(delay_s * _NANOSECONDS)
        await self._connection.send(self._ack_subject, b"-NAK " + delay if delay_s else b"-NAK")

    async def _strike_off(self) -> None:
        await self._connection.request(self._ack_subject)
