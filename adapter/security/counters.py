"""The rate limit's memory that all processes share: counters on NATS JetStream (ADR-49).

A client's counter is one subject. Each addition is a message that carries the total so far, and messages
live a little longer than the window: the stream is the log of the last minute. What was taken in the window
is the total now less the total before the first message in it, by the server's clock, which is asked now and
then: every process sees the same window, however wrong its own clock is, and it slides.
"""

import asyncio
import json
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b

import nats.errors
import structlog
from nats.js import api
from nats.js.errors import BadRequestError

from adapter.core.errors import Unavailable
from adapter.nats import NatsConnection
from adapter.security.window import WINDOW_S

_log = structlog.get_logger()

STREAM = "MIAAS_RATE"
_SUBJECT = "miaas.rate."
_TIMEOUT_S = 0.5
_SET_UP_AGAIN_S = 1.0
_ASK_TIME_EVERY_S = 60.0
_KEPT_S = WINDOW_S + 10


@dataclass(frozen=True, slots=True)
class Oldest:
    """The window's first message: the total before it, and how long it still counts."""

    before: int
    expires_in_s: float


class Counters:
    """One counter per client. Both methods raise Unavailable when NATS does not answer at once."""

    def __init__(self, connection: NatsConnection, replicas: int) -> None:
        self._connection = connection
        self._js = connection.client.jetstream(timeout=_TIMEOUT_S)
        self._replicas = replicas
        self._away_until = 0.0
        self.ready = False
        self.epoch: object = None
        """Another one when the counters had to begin anew."""
        self._server_time = datetime.fromtimestamp(0, UTC)
        self._told_at = 0.0
        connection.use(self._prepare, self._lose)
        connection.work(self._keep_time)

    @property
    def available(self) -> bool:
        """Whether it is worth asking."""
        return self.ready and time.monotonic() >= self._away_until

    async def add(self, client: str, count: int) -> int:
        """Add `count`, which may be negative; returns the total."""
        try:
            ack = await self._js.publish(_subject(client), b"", headers={"Nats-Incr": f"{count:+d}"})
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise self._away() from error
        return int(ack.val or 0)

    async def oldest(self, client: str) -> Oldest | None:
        """The first message of the window that ends now, or None when there is none."""
        passed_s = time.monotonic() - self._told_at
        start = self._server_time + timedelta(seconds=passed_s - WINDOW_S)
        request = {"next_by_subj": _subject(client), "start_time": start.isoformat()}
        try:
            answer = await self._connection.client.request(
                f"$JS.API.DIRECT.GET.{STREAM}", json.dumps(request).encode(), timeout=_TIMEOUT_S
            )
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise self._away() from error
        headers = answer.headers or {}
        if "Nats-Incr" not in headers:
            if headers.get("Status") == "404":
                return None
            raise self._away()
        total = int(json.loads(answer.data)["val"])
        taken = datetime.fromisoformat(headers["Nats-Time-Stamp"]).astimezone(UTC)
        return Oldest(total - int(headers["Nats-Incr"]), (taken - start).total_seconds())

    def _away(self) -> Unavailable:
        self._connection.doubt()
        self._away_until = time.monotonic() + _SET_UP_AGAIN_S
        return Unavailable("NATS does not answer")

    async def _prepare(self) -> None:
        """Make the stream, however long JetStream takes to come up."""
        config = api.StreamConfig(
            name=STREAM,
            description="What each client took of its rate limit in the last minute.",
            subjects=[f"{_SUBJECT}*"],
            allow_msg_counter=True,
            max_age=_KEPT_S,
            allow_direct=True,
            num_replicas=self._replicas,
            storage=api.StorageType.FILE,
            # Losing a moment of it with the power costs nothing; a write to the disk per lease would.
            persist_mode=api.PersistMode.ASYNC if self._replicas == 1 else None,
        )
        while not self.ready:
            try:
                with suppress(BadRequestError):  # it is there, perhaps with another configuration
                    await self._js.add_stream(config)
                await self._look()
                self.ready = True
            except (nats.errors.Error, OSError, TimeoutError) as error:
                _log.warning("rate limit counted locally", reason=str(error) or type(error).__name__)
                await asyncio.sleep(_SET_UP_AGAIN_S)
        _log.info("rate limit shared through NATS")

    async def _look(self) -> None:
        """Learn what time it is at the server, and since when the stream is there."""
        answer = await self._connection.client.request(f"$JS.API.STREAM.INFO.{STREAM}", timeout=_TIMEOUT_S)
        try:
            info = json.loads(answer.data)
            self._server_time = datetime.fromisoformat(info["ts"]).astimezone(UTC)
            self.epoch = info["created"]
        except (KeyError, ValueError) as error:
            raise nats.errors.Error("the stream of the rate limit is not there") from error
        self._told_at = time.monotonic()

    async def _keep_time(self) -> None:
        while True:
            await asyncio.sleep(_ASK_TIME_EVERY_S)
            with suppress(nats.errors.Error, OSError, TimeoutError):
                await self._look()

    def _lose(self) -> None:
        self.ready = False


def _subject(client: str) -> str:
    """A token of the hash: a client's id is never part of a subject."""
    return _SUBJECT + blake2b(client.encode(), digest_size=16).hexdigest()
