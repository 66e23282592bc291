"""One message lent to this worker: finished, or given back."""

import structlog
from nats.aio.msg import Msg

from adapter.core.types import Job, JobError, JobResult
from adapter.core.wire import decode_request
from adapter.jobs import messages, notes
from adapter.jobs.chunks import ChunksGone, Damaged
from adapter.jobs.connection import Connection
from adapter.jobs.inputs import Inputs, wanted_again
from adapter.jobs.results import Results

_log = structlog.get_logger()

_NANOSECONDS = 1_000_000_000
_LOST = "input_lost"


class JetStreamDelivery:
    """`adapter.core.ports.Delivery`."""

    def __init__(
        self, connection: Connection, results: Results, inputs: Inputs, message: Msg, job: Job, pointer: str
    ) -> None:
        self._connection = connection
        self._results = results
        self._inputs = inputs
        self._ack_subject = message.reply
        self._pointer = pointer
        self._whole = not pointer
        self.job = job
        self.deliveries = self.attempt = message.metadata.num_delivered or 1
        self.lost: JobError | None = None
        self._saved = False
        self._kept = ""

    @classmethod
    def of(
        cls, connection: Connection, results: Results, inputs: Inputs, message: Msg
    ) -> "JetStreamDelivery | None":
        """The delivery, or None for a message that is none of ours: it stays, and the log says so."""
        headers = message.headers or {}
        pointer = headers.get(messages.CHUNKS, "")
        try:
            job = messages.read_job_headers(headers) if pointer else messages.read_job(message.data, headers)
        except (ValueError, KeyError, IndexError) as error:
            _log.error("unreadable job", subject=message.subject, error=repr(error))
            return None
        return cls(connection, results, inputs, message, job, pointer)

    async def read(self) -> None:
        """See `Delivery.read`."""
        if self.deliveries > 1:
            self.attempt = self.deliveries - await notes.excused(self._connection, self.job.id)
        if self._whole:
            return
        try:
            payload = await self._inputs.get(self.job, self._pointer)
        except ChunksGone:
            self.lost = JobError(_LOST, "the request's input is not there any more")
        except Damaged:
            self.lost = JobError(_LOST, "the request's input is damaged where it was stored")
        else:
            self.job = self.job._replace(request=decode_request(payload))
            self._whole = True

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
        wanted = wanted_again(result) and not self.lost
        if wanted and not self._kept:
            # One that could not be read stays where it is.
            self._kept = (self._whole and await self._inputs.keep(self.job)) or self._pointer
        self._saved |= await self._results.save(self.job, result, self._kept if wanted else "")
        await self._strike_off()
        if self._pointer and self._pointer != self._kept:
            # If another's result stands, an input that is kept may belong to it.
            everything = self._saved and not wanted
            await self._inputs.forget(self.job, "" if everything else self._pointer)
        return self._saved

    async def give_back(self, delay_s: float, *, excused: bool) -> None:
        """See `Delivery.give_back`."""
        if excused:
            await notes.excuse(self._connection, self.job.id)
        delay = b'{"delay":%d}' % int(delay_s * _NANOSECONDS)
        await self._connection.send(self._ack_subject, b"-NAK " + delay if delay_s else b"-NAK")

    async def _strike_off(self) -> None:
        await self._connection.request(self._ack_subject)
