"""Waiting for results: a note over NATS says that one is there."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error

from adapter.jobs.connection import Connection


@dataclass
class _Note:
    """One subject that somebody waits on, however many they are."""

    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: int = 0
    subscription: Subscription | None = None


class Notes:
    """Announcements that a job is done, one subscription per job however many wait."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._notes: dict[str, _Note] = {}

    @asynccontextmanager
    async def expected(self, subject: str) -> AsyncIterator[asyncio.Event]:
        """While inside, the event tells of a note on the subject. Raises QueueUnavailable."""
        note = self._notes.setdefault(subject, _Note())
        note.waiting += 1
        try:
            if note.waiting == 1:

                async def arrived(_: Msg) -> None:
                    note.arrived.set()

                note.subscription = await self._connection.listen(subject, arrived)
            yield note.arrived
        finally:
            note.waiting -= 1
            if not note.waiting:
                del self._notes[subject]
                if note.subscription is not None:
                    await _forget(note.subscription)


async def _forget(subscription: Subscription) -> None:
    try:
        await subscription.unsubscribe()
    except (Error, OSError):
        # The connection is gone, and the subscription with it.
        return


async def arrived_within(event: asyncio.Event, seconds: float) -> bool:
    """Whether the event was set in time."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
