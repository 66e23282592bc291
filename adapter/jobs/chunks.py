"""Payloads that are too large for one message: chunks below a subject, written before what points to them.

A pointer reads `<name>.<chunks>.<bytes>.<digest>`; chunks that nothing points to expire with their stream.
They share the connection's few transfers with all that is large, and each of these has long: on a slow line
nothing is late because it waited for its turn.
"""

import asyncio
import math
import secrets
from collections.abc import Coroutine, Iterable
from hashlib import blake2b
from typing import TypeVar

from adapter.core.errors import AdapterError
from adapter.jobs.connection import SLOW_TIMEOUT_S, Connection, Stored

T = TypeVar("T")

_HEADROOM = 1024


class ChunksGone(Exception):
    """What the pointer points to is not there any more."""


class Damaged(AdapterError):
    """What the pointer points to is not what was stored there."""


def new_name() -> str:
    """A name for a payload, which no other below its subject has."""
    return secrets.token_hex(8)


def below(subject: str, pointer: str) -> str:
    """The subjects of all chunks of the pointer, or of the name it begins with."""
    return f"{subject}.{pointer.partition('.')[0]}.>"


async def put(
    connection: Connection, stream: str, subject: str, payload: bytes, name: str, keep_s: float = 0
) -> str:
    """Store the payload in the stream under a `new_name`; the pointer. Raises QueueFull, QueueUnavailable.

    With `keep_s` it goes after so many seconds, else with the stream's age.
    """
    size = connection.max_payload - _HEADROOM
    pieces = [payload[at : at + size] for at in range(0, len(payload), size)]
    headers = {"Nats-Expected-Stream": stream}
    if keep_s:
        headers["Nats-TTL"] = str(math.ceil(keep_s))

    async def store(number: int, piece: bytes) -> None:
        await connection.publish(f"{subject}.{name}.{number}", piece, headers, patient=True)

    await _all(store(number, piece) for number, piece in enumerate(pieces))
    return f"{name}.{len(pieces)}.{len(payload)}.{_digest(payload)}"


async def get(connection: Connection, stream: str, subject: str, pointer: str, *, direct: bool) -> bytes:
    """The payload that the pointer points to. Raises ChunksGone, Damaged, QueueUnavailable."""
    name, count, size, digest = pointer.split(".")

    async def load(number: int) -> Stored | None:
        async with connection.transfers:
            place = f"{subject}.{name}.{number}"
            return await connection.last(stream, place, direct=direct, timeout_s=SLOW_TIMEOUT_S)

    found = await _all(load(number) for number in range(int(count)))
    payload = b"".join(piece.payload for piece in found if piece is not None)
    if len(payload) != int(size):
        raise ChunksGone(subject)
    if _digest(payload) != digest:
        raise Damaged(f"what is stored below {subject} is damaged")
    return payload


async def _all(calls: Iterable[Coroutine[None, None, T]]) -> list[T]:
    """The answers, in order; no call is left behind by an error."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call) for call in calls]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


def _digest(payload: bytes) -> str:
    return blake2b(payload, digest_size=16).hexdigest()
