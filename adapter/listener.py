"""An HTTP listener of this process: uvicorn, with our limits."""

import asyncio
import math
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from ssl import SSLContext
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvloop.loop import SSLProtocol  # type: ignore[attr-defined]

from adapter.patience import READ_WITHIN_S
from adapter.protocol import HttpProtocol
from adapter.security.browser import ALWAYS, OVER_TLS
from adapter.security.tls import ServerTls
from adapter.settings import Settings
from adapter.sockets import BACKLOG, listen


class QuietServer(uvicorn.Server):
    """A server that leaves the process's signals to others."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def open_socket(host: str, port: int, option: str, fd: int | None) -> socket.socket:
    """A listening socket: the parent process's `fd`, or a new one. Raises ListenError as `listen` does."""
    return listen(host, port, option) if fd is None else socket.socket(fileno=fd)


def address(listening: socket.socket) -> str:
    """Where it listens, for the log."""
    host, port = listening.getsockname()[:2]
    return f"{host}:{port}"


def config(
    app: ASGIApp,
    settings: Settings,
    tls: ServerTls | None,
    refused: Callable[[str], None],
    grace_s: float | None = None,
) -> uvicorn.Config:
    """How the app is served; `refused` is told the code of what is refused before the app sees it.

    In the end what is in flight has `grace_s`, or as long as the settings say. With `tls` it runs on uvloop
    alone.
    """
    http: Any = partial(HttpProtocol, settings, refused)
    if tls:
        http = _over_tls(http, tls, settings.header_timeout_s)
    return uvicorn.Config(
        app,
        http=http,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        headers=[*ALWAYS, *(OVER_TLS if tls else [])],
        # `Forwarded` knows which proxies to believe; uvicorn believes all on this machine.
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=math.ceil(settings.shutdown_timeout_s if grace_s is None else grace_s),
    )


def _over_tls(http: Callable[..., HttpProtocol], tls: ServerTls, within_s: float) -> Callable[..., "_Tls"]:
    """Connections with the certificate and the CAs of their moment: uvicorn keeps those of its start."""
    every: set[_Tls] = set()
    return lambda **options: _Tls(http(**options), tls.context, within_s, every)


class _Tls(SSLProtocol):  # type: ignore[misc]
    """The TLS of a connection, which uvicorn knows of once its handshake is over.

    A client has `within_s` for that, and as many may be at it as there may be connections: more are hung up
    on. In the end it has the time to take what TLS still holds.
    """

    def __init__(self, inner: HttpProtocol, context: SSLContext, within_s: float, every: "set[_Tls]") -> None:
        times = {"ssl_handshake_timeout": within_s, "ssl_shutdown_timeout": READ_WITHIN_S}
        super().__init__(inner.loop, inner, context, None, True, **times)
        self._inner = inner
        self._every = every

    def connection_made(self, transport: asyncio.Transport) -> None:
        inner = self._inner
        if len(self._every) - len(inner.connections) >= inner.max_connections:
            inner.refused("too_many_connections")
            transport.abort()
            return
        self._every.add(self)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._every.discard(self)
        super().connection_lost(exc)
