"""Small things to remember beside jobs and results: idempotency keys, and attempts that do not count."""

import orjson

from adapter.core.errors import IdempotencyConflict, QueueUnavailable
from adapter.core.types import IdempotencyKey
from adapter.jobs.connection import EXPECTED, Connection
from adapter.jobs.ids import token
from adapter.jobs.streams import NOTES


async def claim(connection: Connection, client: str, wanted: IdempotencyKey, job_id: str) -> str:
    """The id that belongs to the client's key: `job_id` if the key is new, else the one of the first time.

    Of several who claim at the same time one is first, and all get its id. Raises IdempotencyConflict when
    the key came with another request.
    """
    subject = _key(client, wanted)
    found = await connection.last(NOTES, subject, direct=False)
    if found is None:
        content = orjson.dumps({"id": job_id, "digest": wanted.digest})
        if await connection.publish(subject, content, {EXPECTED: "0"}) is not None:
            return job_id
        found = await connection.last(NOTES, subject, direct=False)
    if found is None:
        raise QueueUnavailable("the idempotency key expired just now")
    first = orjson.loads(found.payload)
    if first["digest"] != wanted.digest:
        raise IdempotencyConflict("this Idempotency-Key came before with another request")
    return str(first["id"])


async def renew(
    connection: Connection, client: str, wanted: IdempotencyKey, forgotten: str, job_id: str
) -> str:
    """The id that belongs to the key, in place of one that is forgotten. As `claim` otherwise."""
    found = await connection.last(NOTES, _key(client, wanted), direct=False)
    if found is not None and orjson.loads(found.payload)["id"] == forgotten:
        content = orjson.dumps({"id": job_id, "digest": wanted.digest})
        await connection.publish(found.subject, content, {EXPECTED: str(found.sequence)})
    return await claim(connection, client, wanted, job_id)


async def excused(connection: Connection, job_id: str) -> int:
    """How many deliveries of the job do not count as attempts."""
    found = await connection.last(NOTES, _excuses(job_id), direct=False)
    return int(found.payload) if found else 0


async def excuse(connection: Connection, job_id: str) -> None:
    """One more delivery of the job does not count: it says nothing about the job."""
    count = await excused(connection, job_id) + 1
    await connection.publish(_excuses(job_id), b"%d" % count, {})


async def forget_excuses(connection: Connection, job_id: str) -> None:
    """The job begins anew: its deliveries are counted from 1 again."""
    await connection.purge(NOTES, _excuses(job_id))


def _key(client: str, wanted: IdempotencyKey) -> str:
    return f"miaas.keys.{token(client)}.{token(wanted.key)}"


def _excuses(job_id: str) -> str:
    return f"miaas.excuses.{job_id}"
