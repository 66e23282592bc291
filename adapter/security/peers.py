"""How many processes share the rate limit: each says every few seconds that it is there."""

import asyncio
import secrets
import time

import nats.errors
from nats.aio.msg import Msg

from adapter.nats import NatsConnection

_SUBJECT = "miaas.rate.peers.alive"
_EVERY_S = 2.0
_GONE_AFTER_S = 3 * _EVERY_S


class Peers:
    """Counts them. While NATS is away the count stays what it was."""

    def __init__(self, connection: NatsConnection) -> None:
        self._connection = connection
        self._me = secrets.token_bytes(8)
        self._heard: dict[bytes, float] = {}
        self._listening = False
        connection.work(self._announce)

    def count(self) -> int:
        """Processes heard lately, this one included."""
        # Up to the last word, which may be our own: silence of all is NATS's, not theirs.
        last = max(self._heard.values(), default=0.0)
        self._heard = {peer: at for peer, at in self._heard.items() if at > last - _GONE_AFTER_S}
        return len(self._heard.keys() | {self._me})

    async def _announce(self) -> None:
        client = self._connection.client
        if not self._listening:
            await client.subscribe(_SUBJECT, cb=self._hear)
            self._listening = True
        while True:
            try:
                await client.publish(_SUBJECT, self._me)
            except nats.errors.Error:
                return
            await asyncio.sleep(_EVERY_S)

    async def _hear(self, message: Msg) -> None:
        self._heard[message.data[:8]] = time.monotonic()
        if len(self._heard) > 1000:
            self.count()
