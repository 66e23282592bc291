"""What an operator asks of the queue: how it stands, what is in it, run that again, throw that away."""

from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import orjson

from adapter.jobs import backlog, messages, notes, scan
from adapter.jobs.cancelling import cancel
from adapter.jobs.connection import Connection, Stored
from adapter.jobs.results import Results
from adapter.jobs.streams import INPUTS, JOBS, NOTES, RESULTS
from adapter.settings import Settings


@dataclass(frozen=True, slots=True)
class Line:
    """One job: waiting or running, completed or failed."""

    request_id: str
    client: str
    model: str
    state: str
    submitted: str
    error: str = ""


class QueueAdmin:
    """The whole queue, of all clients."""

    def __init__(self, connection: Connection, settings: Settings) -> None:
        self._connection = connection
        self._results = Results(connection, settings.result_max_bytes)

    async def status(self) -> dict[str, Any]:
        """What each stream holds, and each lane."""
        streams, lanes = {}, {}
        for name in (JOBS, INPUTS, RESULTS, NOTES):
            info = await self._connection.api(f"STREAM.INFO.{name}")
            state, config = info["state"], info["config"]
            streams[name] = {
                "messages": state["messages"],
                "bytes": state["bytes"],
                "max_messages": max(config["max_msgs"], 0),
                "max_bytes": max(config["max_bytes"], 0),
                "replicas": config["num_replicas"],
            }
        for name, consumer in (await backlog.lanes(self._connection)).items():
            lanes[name] = {
                "waiting": consumer["num_pending"],
                "running": consumer["num_ack_pending"],
                "delivered_again": consumer["num_redelivered"],
            }
        return {"streams": streams, "lanes": lanes}

    async def waiting(self) -> AsyncIterator[tuple[Line, Stored]]:
        """Jobs without a result, oldest first."""
        async for subject in scan.subjects(self._connection, JOBS, "miaas.jobs.>"):
            if stored := await self._connection.last(JOBS, subject, direct=False):
                yield _line(stored, "waiting"), stored

    async def ended(self) -> AsyncIterator[tuple[Line, Stored]]:
        """Results, oldest first, without their payloads."""
        async for stored in scan.headers(self._connection, RESULTS, "miaas.results.*.*"):
            yield _line(stored, stored.headers[messages.STATE]), stored

    async def failed(self) -> AsyncIterator[tuple[Line, Stored]]:
        """Failed jobs, oldest first, with their errors."""
        async for line, found in self.ended():
            if line.state == "failed":
                stored = await self._connection.last(RESULTS, found.subject, direct=False)
                if stored is not None:
                    error = orjson.loads(stored.payload)
                    yield replace(line, error=f"{error['code']}: {error['message']}"), stored

    async def requeue(self, stored: Stored, timeout_s: float) -> bool:
        """Queue a failed job again under its id, with a new deadline; whether its input was still there.

        Its failed result stands until the new one takes its place.
        """
        headers = dict(stored.headers)
        pointer = headers.get(messages.INPUT)
        if not pointer:
            return False
        job = messages.read_job_headers(headers)
        now = datetime.now(UTC).timestamp()
        again = job._replace(deadline=now + timeout_s, replaces=stored.sequence)
        content = {**messages.job_headers(again), messages.CHUNKS: pointer}
        await notes.forget_excuses(self._connection, job.id)
        await self._connection.publish(messages.job_subject(job.client, job.id), b"", content)
        return True

    async def purge(self, stored: Stored) -> None:
        """End a waiting job as cancelled: its client was promised an answer."""
        await cancel(self._connection, self._results, stored, "the request was cancelled by an operator")


def _line(stored: Stored, state: str) -> Line:
    job = messages.read_job_headers(stored.headers)
    submitted = datetime.fromtimestamp(job.submitted, UTC).isoformat(timespec="seconds")
    return Line(job.id, job.client, job.request.model_name, state, submitted)


def as_dict(line: Line) -> dict[str, str]:
    """A line for JSON."""
    return asdict(line)
