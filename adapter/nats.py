"""The process's one connection to NATS; the queue and the rate limit share it."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import nats.errors
import structlog
from nats.aio.client import Client as NatsClient

from adapter.security.tls import nats_is_tls, nats_options
from adapter.settings import Settings

_log = structlog.get_logger()

Connected = Callable[[], Awaitable[None]]
Disconnected = Callable[[], None]


class _Client(NatsClient):
    """nats-py speaks plain text to a server that offers no TLS, or whose offer somebody took out on the way.

    With `tls_only` it says nothing to such a server: no credentials and no data.
    """

    tls_only = False

    def _connect_command(self) -> bytes:
        # The first thing that is sent, after the handshake if there was one.
        if self.tls_only and not self._server_info.get("tls_required"):
            raise nats.errors.SecureConnRequiredError
        return super()._connect_command()


class NatsConnection:
    """Connects in the background and for ever: NATS may come up later, and go away in between."""

    def __init__(self, settings: Settings) -> None:
        self.client = _Client()
        self.client.tls_only = nats_is_tls(settings)
        self._settings = settings
        self._users: list[tuple[Connected, Disconnected]] = []
        self._connecting: asyncio.Task[None] | None = None
        self._preparing: set[asyncio.Task[None]] = set()

    @property
    def connected(self) -> bool:
        """Whether the server can be talked to now."""
        return self.client.is_connected

    def use(self, connected: Connected, disconnected: Disconnected) -> None:
        """Have `connected` run, in a task of its own, after each (re)connect, `disconnected` after each loss.

        A `connected` that still runs when the connection is lost is cancelled.
        """
        self._users.append((connected, disconnected))

    def open(self) -> None:
        """Begin to connect; needs a running event loop."""
        self._connecting = asyncio.create_task(self._connect())

    async def close(self) -> None:
        """Leave; what was published is stored, nothing is waited for."""
        tasks = [*self._preparing, *([self._connecting] if self._connecting else [])]
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
        await self.client.close()

    async def _connect(self) -> None:
        settings = self._settings

        told = ""

        async def tell(error: Exception) -> None:
            # The same trouble comes again with every attempt; it is told once.
            nonlocal told
            if str(error) != told:
                told = str(error)
                _log.warning("nats", error=told or type(error).__name__)

        options: dict[str, Any] = nats_options(settings)
        await self.client.connect(
            settings.nats_url.split(","),
            name="miaas-adapter",
            connect_timeout=2,
            reconnect_time_wait=1,
            max_reconnect_attempts=-1,
            # A server that is there and does not answer is left for another within half a minute.
            ping_interval=10,
            # Nothing is kept to be sent later: the caller is told that it failed.
            pending_size=-1,
            error_cb=tell,
            disconnected_cb=self._on_disconnected,
            reconnected_cb=self._on_connected,
            **options,
        )
        await self._on_connected()

    async def _on_connected(self) -> None:
        self._cancel_preparing()
        for connected, _ in self._users:
            task = asyncio.ensure_future(connected())
            self._preparing.add(task)
            task.add_done_callback(self._preparing.discard)

    async def _on_disconnected(self) -> None:
        self._cancel_preparing()
        for _, disconnected in self._users:
            disconnected()

    def _cancel_preparing(self) -> None:
        for task in self._preparing:
            task.cancel()
