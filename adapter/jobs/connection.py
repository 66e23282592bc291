"""The part of JetStream's API that the queue needs; NATS's errors become ours here.

A call that is under way when the connection breaks fails at once.
"""

import asyncio
import time
from base64 import b64decode
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import nats.errors
import orjson
import structlog
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from adapter.core.errors import AdapterError, PayloadTooLarge, QueueFull, QueueUnavailable
from adapter.jobs.messages import Headers
from adapter.jobs.replies import Replies
from adapter.nats import NatsConnection

_log = structlog.get_logger()

EXPECTED = "Nats-Expected-Last-Subject-Sequence"
"""A header: a message is stored only if the last one on its subject has this number, 0 for none."""
TIMEOUT_S = 0.9
"""How long JetStream may take to answer."""
SLOW_TIMEOUT_S = 10.0
"""The same for calls that go over a whole stream, and for large messages."""
_LARGEST_MESSAGE = 1 << 20
"""The server takes larger ones, but hangs up on a worker that asks for some of them at once: it lets so much
wait for a client, and for so long.
"""
_LARGE = 256 << 10
_TRANSFERS = 8
_LOOK_UPS = 32
"""So many of the largest messages, and those that a worker asks for, are well below what the server lets wait
for a client (64 MB).
"""
_RETRY_S = 0.5
_NEVER_STORED = {EXPECTED: str((1 << 63) - 1)}
_LOOK_AGAIN_S = 0.02

_STREAM_STORE_FAILED = 10077
_WRONG_LAST_SEQUENCE = 10071
_IN_PROCESS = (10158, 10164)
"""In a cluster: another message that wants the place, or that has the same id, is not settled yet."""
_OUT_OF_STORAGE = (10023, 10028, 10047)
NOT_FOUND = 404


class Refused(QueueUnavailable):
    """JetStream's own error: its HTTP-like code, and its number for what happened."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        self.status = int(error.get("code", 0))
        self.number = int(error.get("err_code", 0))
        self.description = str(error.get("description", ""))
        super().__init__(f"JetStream refused: {self.description}")


@dataclass(frozen=True, slots=True)
class Stored:
    """A message of a stream."""

    subject: str
    sequence: int
    payload: bytes
    headers: Mapping[str, str]


class Connection:
    """JetStream over the process's connection. Every call raises QueueUnavailable while there is none."""

    def __init__(self, connection: NatsConnection, prepare: Callable[[], Awaitable[None]]) -> None:
        self._connection = connection
        self._prepare = prepare
        self._nats = connection.client
        self._ready = asyncio.Event()
        self._replies = Replies(connection.client)
        self.transfers = asyncio.Semaphore(_TRANSFERS)
        """Held while a large message is on its way: all else that is sent meanwhile stands behind it."""
        self._look_ups = asyncio.Semaphore(_LOOK_UPS)

    @property
    def ready(self) -> bool:
        """Whether calls can succeed."""
        return self._ready.is_set() and self._nats.is_connected

    @property
    def max_payload(self) -> int:
        """Bytes of headers and payload together that go into one message."""
        return min(self._nats.max_payload, _LARGEST_MESSAGE)

    def use(self) -> None:
        """Get ready after each (re)connect."""
        self._connection.use(self._get_ready, self.lose)

    def lose(self) -> None:
        """Fail what is under way, and whatever comes until it is ready again."""
        self._ready.clear()
        self._replies.lose()

    async def wait_ready(self, within_s: float) -> None:
        """Return once calls can succeed. Raises QueueUnavailable when that takes too long."""
        try:
            async with asyncio.timeout(within_s):
                await self._ready.wait()
        except TimeoutError:
            raise QueueUnavailable("NATS cannot be reached") from None

    async def request(
        self, subject: str, payload: bytes = b"", headers: Headers | None = None, timeout_s: float = TIMEOUT_S
    ) -> Msg:
        """Ask, and wait for the answer. Raises QueueUnavailable.

        However long the answer may take: after `TIMEOUT_S` a server that says nothing at all is left.
        """
        if not self._nats.is_connected:
            raise QueueUnavailable("NATS cannot be reached")
        doubting = (
            asyncio.get_running_loop().call_later(TIMEOUT_S, self.doubt) if timeout_s > TIMEOUT_S else None
        )
        with _TRANSLATED:
            try:
                return await self._replies.ask(subject, payload, headers, timeout_s)
            except TimeoutError:
                self.doubt()
                raise
            finally:
                if doubting:
                    doubting.cancel()

    async def send(self, subject: str, payload: bytes = b"", reply: str = "") -> None:
        """Publish without an answer: it may get lost. Raises QueueUnavailable."""
        if not self._nats.is_connected:
            raise QueueUnavailable("NATS cannot be reached")
        with _TRANSLATED:
            await self._nats.publish(subject, payload, reply)

    async def listen(self, subject: str, callback: Callable[[Msg], Awaitable[None]]) -> Subscription:
        """Have `callback` called with every message on the subject. Raises QueueUnavailable."""
        with _TRANSLATED:
            return await self._nats.subscribe(subject, cb=callback)

    def doubt(self) -> None:
        """An answer did not come in time: see whether the server is there."""
        self._connection.doubt()

    def new_inbox(self) -> str:
        """A subject that nobody else listens to."""
        return self._nats.new_inbox()

    async def api(self, subject: str, content: Any = None, timeout_s: float = TIMEOUT_S) -> Any:
        """A call of `$JS.API`. Raises Refused for its error, else QueueUnavailable."""
        payload = b"" if content is None else orjson.dumps(content)
        return _answer(await self.request(f"$JS.API.{subject}", payload, timeout_s=timeout_s))

    async def publish(
        self, subject: str, payload: bytes, headers: Headers, *, patient: bool = False
    ) -> int | None:
        """Store a message durably; its sequence number, or None when the place is taken already.

        Large messages share the transfers, and have long, as does one that is `patient`. Raises QueueFull,
        PayloadTooLarge, and QueueUnavailable when it may or may not have been stored.
        """
        size = message_size(payload, headers)
        if size > self.max_payload:
            raise PayloadTooLarge(f"{size} bytes are more than the queue takes ({self.max_payload})")
        if size > _LARGE or patient:
            async with self.transfers:
                return await self._publish(subject, payload, headers, SLOW_TIMEOUT_S)
        return await self._publish(subject, payload, headers, TIMEOUT_S)

    async def _publish(self, subject: str, payload: bytes, headers: Headers, timeout_s: float) -> int | None:
        until = time.monotonic() + timeout_s
        while True:
            if not self.ready:
                raise QueueUnavailable("NATS cannot be reached")
            try:
                answer = _answer(await self.request(subject, payload, headers, timeout_s))
            except Refused as error:
                if error.number == _WRONG_LAST_SEQUENCE or "per subject" in error.description:
                    return None
                if error.number == _STREAM_STORE_FAILED or error.number in _OUT_OF_STORAGE:
                    raise QueueFull(f"the queue is full: {error.description}") from error
                if error.number not in _IN_PROCESS or time.monotonic() > until:
                    raise
                await asyncio.sleep(_LOOK_AGAIN_S)
            else:
                return None if answer.get("duplicate") else int(answer["seq"])

    async def last(
        self, stream: str, subject: str, *, direct: bool, timeout_s: float = TIMEOUT_S
    ) -> Stored | None:
        """The last message on the subject, from any server that holds the stream, or from its leader."""
        async with self._look_ups:
            if not self.ready:
                raise QueueUnavailable("NATS cannot be reached")
            if not direct:
                return await self.stored(stream, {"last_by_subj": subject}, timeout_s)
            found = await self.request(f"$JS.API.DIRECT.GET.{stream}.{subject}", timeout_s=timeout_s)
        headers = found.headers or {}
        if (status := headers.get("Status")) is None:
            return Stored(subject, int(headers["Nats-Sequence"]), found.data, headers)
        if int(status) == NOT_FOUND:
            return None
        raise QueueUnavailable(f"JetStream answered {status}")

    async def stored(
        self, stream: str, wanted: Mapping[str, Any], timeout_s: float = TIMEOUT_S
    ) -> Stored | None:
        """The message that `wanted` describes in the words of `STREAM.MSG.GET`, from the stream's leader."""
        try:
            found = (await self.api(f"STREAM.MSG.GET.{stream}", wanted, timeout_s))["message"]
        except Refused as error:
            if error.status == NOT_FOUND:
                return None
            raise
        headers = _read_headers(b64decode(found.get("hdrs", "")))
        return Stored(found["subject"], found["seq"], b64decode(found.get("data", "")), headers)

    async def settle(self, subject: str) -> None:
        """Return when the subject's stream has stored or refused all that was sent to it before.

        A stream takes in what is sent to it one by one, and is purged at once. Raises QueueUnavailable.
        """
        with suppress(QueueFull):
            await self.publish(subject, b"", _NEVER_STORED, patient=True)

    async def purge(self, stream: str, subject: str, up_to: int = 0) -> None:
        """Delete the stream's messages on the subject, which may hold wildcards; with `up_to` none later."""
        content = {"filter": subject, **({"seq": up_to + 1} if up_to else {})}
        await self.api(f"STREAM.PURGE.{stream}", content, SLOW_TIMEOUT_S)

    async def _get_ready(self) -> None:
        """Also after a server came back with an empty store."""
        while not self._ready.is_set():
            try:
                with _TRANSLATED:
                    await self._replies.listen()
                await self._prepare()
                self._ready.set()
            except AdapterError as error:
                _log.warning("queue not ready", reason=error.message)
                await asyncio.sleep(_RETRY_S)


def message_size(payload: bytes, headers: Headers) -> int:
    """What the server counts: nats-py counts the payload alone, and the server hangs up over the sum."""
    return len(payload) + 12 + sum(len(key) + len(value) + 4 for key, value in headers.items())


class _Translated:
    """NATS's errors → ours; a generator of contextlib's would cost more, and every job comes by here."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, nats.errors.MaxPayloadError):
            raise PayloadTooLarge("the request is larger than the queue takes") from error
        # TimeoutError is an OSError.
        if isinstance(error, nats.errors.Error | OSError):
            raise QueueUnavailable("NATS does not answer") from error


_TRANSLATED = _Translated()


def _answer(message: Msg) -> Any:
    answer = orjson.loads(message.data)
    if "error" in answer:
        raise Refused(answer["error"])
    return answer


def _read_headers(block: bytes) -> dict[str, str]:
    """NATS's header block: a version line, then `name: value` lines."""
    lines = block.decode().split("\r\n")[1:]
    return dict(line.split(": ", 1) for line in lines if ": " in line)
