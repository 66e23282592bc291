"""Going over whole streams, for operators: slow, and never in the way of jobs."""

import asyncio
from collections.abc import AsyncIterator

from nats.aio.msg import Msg

from adapter.core.errors import QueueUnavailable
from adapter.jobs.connection import SLOW_TIMEOUT_S, Connection, Stored

_AT_ONCE = 256
_IDLE_NS = 60 * 1_000_000_000


async def subjects(connection: Connection, stream: str, pattern: str) -> AsyncIterator[str]:
    """The subjects of a stream's messages, in the order of their last token."""
    offset, found = 0, dict[str, int]()
    while True:
        content = {"subjects_filter": pattern, "offset": offset}
        answer = await connection.api(f"STREAM.INFO.{stream}", content, SLOW_TIMEOUT_S)
        part = answer["state"].get("subjects") or {}
        found |= part
        offset += len(part)
        if not part or offset >= answer.get("total", 0):
            break
    for subject in sorted(found, key=lambda subject: subject.rpartition(".")[2]):
        yield subject


async def headers(connection: Connection, stream: str, pattern: str) -> AsyncIterator[Stored]:
    """A stream's messages in order, without their payloads. Not for a work queue."""
    inbox = connection.new_inbox()
    arrived: asyncio.Queue[Msg] = asyncio.Queue()
    subscription = await connection.listen(inbox, arrived.put)
    config = {
        "filter_subject": pattern,
        "headers_only": True,
        "ack_policy": "none",
        "deliver_policy": "all",
        "inactive_threshold": _IDLE_NS,
    }
    created = await connection.api(f"CONSUMER.CREATE.{stream}", {"stream_name": stream, "config": config})
    name, left = created["name"], int(created["num_pending"])
    try:
        while left > 0:
            batch = min(left, _AT_ONCE)
            await connection.send(
                f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}", b'{"batch":%d,"no_wait":true}' % batch, inbox
            )
            for _ in range(batch):
                try:
                    async with asyncio.timeout(SLOW_TIMEOUT_S):
                        message = await arrived.get()
                except TimeoutError:
                    raise QueueUnavailable("NATS does not answer") from None
                if not message.reply:
                    return  # a status: what is left has expired meanwhile
                left -= 1
                sequence = message.metadata.sequence.stream
                yield Stored(message.subject, sequence, b"", message.headers or {})
    finally:
        await subscription.unsubscribe()
        await connection.api(f"CONSUMER.DELETE.{stream}.{name}")
