"""The process's one connection to NATS; the queue and the rate limit share it."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import nats.errors
import structlog

from adapter.nats_client import NatsClient
from adapter.security.nats_access import connect_options, is_tls, login
from adapter.settings import Settings

_log = structlog.get_logger()

Connected = Callable[[], Coroutine[Any, Any, None]]
Disconnected = Callable[[], None]

_SILENT_S = 0.3
_PONG_WITHIN_S = 10.0
_SETTLED_WITHIN_S = 3.0
"""Less than `up` gives a process to end, which may be told so while it starts."""


class NatsConnection:
    """Connects in the background and for ever: NATS may come up later, and go away in between.

    Raises TlsError when certificates or credentials cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self.client = NatsClient(is_tls(settings), login(settings))
        self._urls = settings.nats_url.split(",")
        self._options = connect_options(settings)
        self._users: list[tuple[Connected, Disconnected]] = []
        self._works: list[Connected] = []
        self._connecting: asyncio.Task[None] | None = None
        self._while_connected: set[asyncio.Task[None]] = set()
        self._doubting: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()
        self._failures = 0
        self._told = ""

    @property
    def connected(self) -> bool:
        """Whether the server can be talked to now."""
        return self.client.is_connected

    def use(self, connected: Connected, disconnected: Disconnected) -> None:
        """Have `connected` run, in a task of its own, after each (re)connect, `disconnected` after each loss.

        `connected` returns when all is ready; one that still runs when the connection is lost is cancelled.
        """
        self._users.append((connected, disconnected))

    def work(self, work: Connected) -> None:
        """Have `work` run, in a task of its own, from each (re)connect on, until the connection is lost."""
        self._works.append(work)

    def doubt(self) -> None:
        """A call was not answered in time: see whether the server is there, or leave it for another one.

        Packets may get lost on the way without a word; pings would tell so after half a minute.
        """
        if self._doubting is None and self.connected:
            self._doubting = asyncio.create_task(self._make_sure())

    def open(self) -> None:
        """Begin to connect; needs a running event loop."""
        self._connecting = asyncio.create_task(self._connect())

    async def settled(self) -> None:
        """Return once all who use it are prepared, or no server lets us in at once: it may come up later."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_SETTLED_WITHIN_S):
                await self._settled.wait()

    async def close(self) -> None:
        """Leave; what was published is stored, nothing is waited for."""
        tasks = [*self._while_connected, *filter(None, (self._connecting, self._doubting))]
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
        await self.client.close()

    async def _connect(self) -> None:
        await self.client.connect(
            self._urls,
            name="miaas-adapter",
            connect_timeout=2,
            reconnect_time_wait=1,
            max_reconnect_attempts=-1,
            # A server that is asked nothing and is gone without a word is left within half a minute.
            ping_interval=10,
            # Nothing is kept to be sent later: the caller is told that it failed.
            pending_size=-1,
            error_cb=self._tell,
            disconnected_cb=self._on_disconnected,
            reconnected_cb=self._on_connected,
            **self._options,
        )
        await self._on_connected()

    async def _tell(self, error: Exception) -> None:
        if not self.connected:
            self._failures += 1
            if self._failures >= len(self._urls):
                self._settled.set()
        # The same trouble comes again with every attempt; in one absence it is told once.
        text = str(error) or type(error).__name__
        if text != self._told:
            self._told = text
            _log.warning("nats", error=text)

    async def _make_sure(self) -> None:
        """Leave a server that says nothing at all: its PONG may stand behind much else that it sends."""
        stats, pong = self.client.stats, asyncio.create_task(self._pong())
        reconnects, heard = stats["reconnects"], -1
        try:
            while not pong.done() and stats["reconnects"] == reconnects:
                if heard == stats["in_msgs"]:
                    _log.warning("nats", error="does not answer")
                    await self.client.leave()
                    break
                heard = stats["in_msgs"]
                await asyncio.wait([pong], timeout=_SILENT_S)
        finally:
            pong.cancel()
            self._doubting = None

    async def _pong(self) -> None:
        with suppress(nats.errors.Error):  # it was lost meanwhile
            await self.client.flush(_PONG_WITHIN_S)  # type: ignore[arg-type]

    async def _on_connected(self) -> None:
        self._told = ""
        self._cancel_all()
        preparing = [self._start(connected()) for connected, _ in self._users]
        self._start(self._settle(preparing))
        for work in self._works:
            self._start(work())

    async def _settle(self, preparing: list[asyncio.Task[None]]) -> None:
        if preparing:
            await asyncio.wait(preparing)
        self._settled.set()

    async def _on_disconnected(self) -> None:
        self._cancel_all()
        for _, disconnected in self._users:
            disconnected()

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine)
        self._while_connected.add(task)
        task.add_done_callback(self._while_connected.discard)
        return task

    def _cancel_all(self) -> None:
        for task in self._while_connected:
            task.cancel()
