"""The process's one connection to NATS; the queue and the rate limit share it."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import nats.errors
import structlog
from nats.aio.client import Client as NatsClient
from nats.aio.client import Srv
from nats.aio.transport import TcpTransport

from adapter.security.tls import nats_is_tls, nats_options
from adapter.settings import Settings

_log = structlog.get_logger()

Connected = Callable[[], Awaitable[None]]
Disconnected = Callable[[], None]

_PONG_WITHIN_S = 0.3


class _Client(NatsClient):
    """nats-py speaks plain text to a server that offers no TLS, or whose offer somebody took out on the way.

    With `tls_only` it says nothing to such a server: no credentials and no data.

    It also waits, perhaps for ever, until a silent server has taken what was written; here a connection that
    is given up ends at once, and what it had not sent is forgotten: the caller is told that it failed.
    """

    tls_only = False

    async def leave(self) -> None:
        """Give the connection up, and make another one."""
        await self._process_op_err(nats.errors.StaleConnectionError())

    def _connect_command(self) -> bytes:
        # The first thing that is sent, after the handshake if there was one.
        if self.tls_only and not self._server_info.get("tls_required"):
            raise nats.errors.SecureConnRequiredError
        return super()._connect_command()

    async def _process_op_err(self, e: Exception) -> None:
        # Whatever is wrong with a connection comes by here.
        if not self.is_closed and not self.is_reconnecting:
            self._abort()
            self._pending.clear()
            self._pending_data_size = 0
        await super()._process_op_err(e)

    async def _connect_to_server(self, s: Srv) -> None:
        # An attempt that came to nothing left its socket open.
        self._abort()
        await super()._connect_to_server(s)

    def _abort(self) -> None:
        if isinstance(self._transport, TcpTransport) and (writer := self._transport._io_writer):
            writer.transport.abort()


class NatsConnection:
    """Connects in the background and for ever: NATS may come up later, and go away in between."""

    def __init__(self, settings: Settings) -> None:
        self.client = _Client()
        self.client.tls_only = nats_is_tls(settings)
        self._settings = settings
        self._users: list[tuple[Connected, Disconnected]] = []
        self._connecting: asyncio.Task[None] | None = None
        self._preparing: set[asyncio.Task[None]] = set()
        self._doubting: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        """Whether the server can be talked to now."""
        return self.client.is_connected

    def use(self, connected: Connected, disconnected: Disconnected) -> None:
        """Have `connected` run, in a task of its own, after each (re)connect, `disconnected` after each loss.

        A `connected` that still runs when the connection is lost is cancelled.
        """
        self._users.append((connected, disconnected))

    def doubt(self) -> None:
        """A call was not answered in time: see whether the server is there, or leave it for another one.

        Packets may get lost on the way without a word; pings would tell so after half a minute.
        """
        if self._doubting is None and self.connected:
            self._doubting = asyncio.create_task(self._make_sure())

    def open(self) -> None:
        """Begin to connect; needs a running event loop."""
        self._connecting = asyncio.create_task(self._connect())

    async def close(self) -> None:
        """Leave; what was published is stored, nothing is waited for."""
        tasks = [*self._preparing, *filter(None, (self._connecting, self._doubting))]
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
            # A server that is asked nothing and is gone without a word is left within half a minute.
            ping_interval=10,
            # Nothing is kept to be sent later: the caller is told that it failed.
            pending_size=-1,
            error_cb=tell,
            disconnected_cb=self._on_disconnected,
            reconnected_cb=self._on_connected,
            **options,
        )
        await self._on_connected()

    async def _make_sure(self) -> None:
        try:
            await self.client.flush(_PONG_WITHIN_S)  # type: ignore[arg-type]
        except nats.errors.FlushTimeoutError:
            _log.warning("nats", error="does not answer")
            await self.client.leave()
        except nats.errors.Error:
            pass  # it was lost meanwhile
        finally:
            self._doubting = None

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
