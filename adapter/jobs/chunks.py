"""Payloads that are too large for one message: chunks below a subject, written before what points to them.

A pointer reads `<name>.<chunks>.<bytes>.<digest>`; chunks that nothing points to expire with their stream.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Iterable
from hashlib import blake2b
from typing import TypeVar

from adapter.core.errors import QueueUnavailable
from adapter.jobs.connection import Connection

T = TypeVar("T")

_CHUNK_BYTES = 1 << 20
_HEADROOM = 1024
_AT_ONCE = 4


class ChunksGone(Exception):
    """What the pointer points to is not there any more."""


async def put(connection: Connection, stream: str, subject: str, payload: bytes) -> str:
    """Store the payload in the stream; the pointer. Raises QueueFull, QueueUnavailable."""
    name = secrets.token_hex(8)
    size = min(_CHUNK_BYTES, connection.max_payload - _HEADROOM)
    pieces = [payload[at : at + size] for at in range(0, len(payload), size)]
    headers = {"Nats-Expected-Stream": stream}
    await _some_at_once(
        connection.publish(f"{subject}.{name}.{number}", piece, headers)
        for number, piece in enumerate(pieces)
    )
    return f"{name}.{len(pieces)}.{len(payload)}.{_digest(payload)}"


async def get(connection: Connection, stream: str, subject: str, pointer: str, *, direct: bool) -> bytes:
    """The payload that the pointer points to. Raises ChunksGone, QueueUnavailable."""
    name, count, size, digest = pointer.split(".")
    found = await _some_at_once(
        connection.last(stream, f"{subject}.{name}.{number}", direct=direct) for number in range(int(count))
    )
    payload = b"".join(piece.payload for piece in found if piece is not None)
    if len(payload) != int(size):
        raise ChunksGone(subject)
    if _digest(payload) != digest:
        raise QueueUnavailable(f"what is stored below {subject} is damaged")
    return payload


async def _some_at_once(calls: Iterable[Awaitable[T]]) -> list[T]:
    """The answers, in order; few calls are under way at a time, and none is left behind by an error."""
    numbered = enumerate(calls)
    answers: dict[int, T] = {}

    async def work() -> None:
        for number, call in numbered:
            answers[number] = await call

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(work())
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [answers[number] for number in sorted(answers)]


def _digest(payload: bytes) -> str:
    return blake2b(payload, digest_size=16).hexdigest()
