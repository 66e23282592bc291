"""Requests over NATS and their answers, which come to one inbox.

nats-py's own requests cost several times as much: each has a random token, two timers and a task.
"""

import asyncio
from itertools import count

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from adapter.jobs.messages import Headers

_NO_RESPONDERS = "503"


class Replies:
    """What this process waits for."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._inbox = ""
        self._loop: asyncio.AbstractEventLoop
        self._numbers = count()
        self._waiting: dict[str, asyncio.Future[Msg]] = {}

    async def listen(self) -> None:
        """Have answers come, through every reconnect; before, nothing can be asked. Raises NATS's errors."""
        if not self._inbox:
            inbox = self._client.new_inbox()
            await self._client.subscribe(f"{inbox}.*", cb=self._arrived)
            self._inbox, self._loop = inbox, asyncio.get_running_loop()

    async def ask(self, subject: str, payload: bytes, headers: Headers | None, timeout_s: float) -> Msg:
        """The answer. Raises TimeoutError, and nats.errors.Error: NoRespondersError when nobody listens."""
        number = str(next(self._numbers))
        # Before Python 3.12 asyncio makes a system call to tell which loop it is.
        answer: asyncio.Future[Msg] = self._loop.create_future()
        self._waiting[number] = answer
        timer = self._loop.call_later(timeout_s, _give_up, answer)
        try:
            await self._client.publish(subject, payload, f"{self._inbox}.{number}", headers)
            message = await answer
        finally:
            timer.cancel()
            del self._waiting[number]
        if message.headers and message.headers.get("Status") == _NO_RESPONDERS:
            raise nats.errors.NoRespondersError
        return message

    def lose(self) -> None:
        """Have all that wait time out now."""
        for answer in self._waiting.values():
            _give_up(answer)

    async def _arrived(self, message: Msg) -> None:
        answer = self._waiting.get(message.subject.rpartition(".")[2])
        if answer is not None and not answer.done():
            answer.set_result(message)


def _give_up(answer: asyncio.Future[Msg]) -> None:
    if not answer.done():
        answer.set_exception(TimeoutError())
