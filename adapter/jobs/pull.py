"""Taking messages from nine consumers by weight, and never more than asked for.

Lanes that are believed to hold jobs are asked in one go, by their shares; each answers at once, with messages
or with none. A process that submits a job wakes those who wait, through a message that may get lost; so every
lane is looked at again each second all the same.
"""

import asyncio
import time
from collections.abc import Sequence

from nats.aio.msg import Msg

from adapter.core.errors import QueueUnavailable
from adapter.jobs.connection import Connection
from adapter.jobs.lanes import BY_CONSUMER, LANES, Lane, Shares
from adapter.jobs.streams import JOBS

WAKE = "miaas.wake"
"""Below it, by the consumer's name, it is announced that a lane has a job."""
_LOOK_AGAIN_S = 1.0
_ANSWER_S = 2.0
_AT_ONCE = 16
"""Messages that are asked for in one go: all that they can weigh together is well below what the server lets
wait for a client (64 MB) before it hangs up.
"""


class _Pull:
    """One request for messages of one lane."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.messages: list[Msg] = []
        self.over = asyncio.get_running_loop().create_future()

    def add(self, message: Msg) -> None:
        """Take in a message."""
        self.messages.append(message)
        if len(self.messages) >= self.most or not message.metadata.num_pending:
            self.end()

    def end(self) -> None:
        """Nothing more is waited for."""
        if not self.over.done():
            self.over.set_result(None)


class Puller:
    """A worker's side of the consumers."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._inbox = ""
        self._pulls: dict[Lane, _Pull] = {}
        self._shares = Shares()
        self._filled = set(LANES)
        self._woken = asyncio.Event()
        self._looked = 0.0
        self._late: list[Msg] = []

    async def fetch(self, most: int, wait_s: float) -> Sequence[Msg]:
        """Up to `most` messages, as soon as there is one; none after `wait_s`. Raises QueueUnavailable."""
        if not self._inbox:
            await self._listen()
        until = time.monotonic() + wait_s
        while True:
            if time.monotonic() - self._looked > _LOOK_AGAIN_S:
                self._looked = time.monotonic()
                self._filled = set(LANES)
            found: list[Msg] = []
            while len(found) < most and (self._filled or self._late):
                try:
                    found += await self._sweep(most - len(found))
                except QueueUnavailable:
                    if not found:
                        raise
                    break  # what came is lent to us
            if found:
                return found
            left = until - time.monotonic()
            if left <= 0:
                return []
            self._woken.clear()
            try:
                async with asyncio.timeout(min(left, _LOOK_AGAIN_S)):
                    await self._woken.wait()
            except TimeoutError:
                pass

    async def _listen(self) -> None:
        inbox = self._connection.new_inbox()
        await self._connection.listen(f"{inbox}.*", self._arrived)
        await self._connection.listen(f"{WAKE}.*", self._wake)
        self._inbox = inbox

    async def _arrived(self, message: Msg) -> None:
        if not message.reply:
            # A status, which says that there are no more; its subject ends with the consumer's name.
            lane = BY_CONSUMER.get(message.subject.rpartition(".")[2])
            if lane in self._pulls:
                self._pulls[lane].end()
            return
        lane = BY_CONSUMER[message.metadata.consumer]
        pull = self._pulls.get(lane)
        if pull is not None and not pull.over.done():
            pull.add(message)
        else:
            # Its pull was over too early: it is lent to us all the same. There may be more, for messages that
            # come again do not count as pending.
            self._late.append(message)
            self._filled.add(lane)
            self._woken.set()

    async def _wake(self, message: Msg) -> None:
        lane = BY_CONSUMER.get(message.subject.rpartition(".")[2])
        if lane is not None:
            self._filled.add(lane)
            self._woken.set()

    async def _sweep(self, most: int) -> list[Msg]:
        """Ask the lanes once. One that had less than its share is not asked again until it is woken."""
        found, self._late = self._late[:most], self._late[most:]
        if found or not self._filled:
            return found
        shares = self._shares.divide(self._filled, min(most, _AT_ONCE))
        self._pulls = {lane: _Pull(count) for lane, count in shares.items()}
        self._filled -= shares.keys()
        try:
            for lane, count in shares.items():
                subject = f"$JS.API.CONSUMER.MSG.NEXT.{JOBS}.{lane.consumer}"
                content = b'{"batch":%d,"no_wait":true}' % count
                await self._connection.send(subject, content, f"{self._inbox}.{lane.consumer}")
            await asyncio.wait([pull.over for pull in self._pulls.values()], timeout=_ANSWER_S)
        finally:
            pulls, self._pulls = self._pulls, {}
        for lane, pull in pulls.items():
            if len(pull.messages) == pull.most:
                self._filled.add(lane)
            else:
                self._shares.empty(lane)
            found += pull.messages
        if not found and not all(pull.over.done() for pull in pulls.values()):
            self._connection.doubt()
            raise QueueUnavailable("NATS does not answer")
        return found
