"""An HTTP listener of this process: uvicorn, with our limits."""

import math
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvloop.loop import SSLProtocol  # type: ignore[attr-defined]

from adapter.protocol import READ_WITHIN_S, HttpProtocol, limits
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
    app: ASGIApp, settings: Settings, tls: ServerTls | None, refused: Callable[[str], None]
) -> uvicorn.Config:
    """How the app is served; `refused` is told the code of what is refused before the app sees it.

    With `tls` it runs on uvloop alone.
    """
    http: Any = limits(settings, refused)
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
        timeout_graceful_shutdown=math.ceil(settings.shutdown_timeout_s),
    )


def _over_tls(http: type[HttpProtocol], tls: ServerTls, within_s: float) -> Callable[..., SSLProtocol]:
    """Makes connections with the certificate and the CAs of their moment; uvicorn keeps those of its start.

    A client has `within_s` for its handshake: only then its connection is one that uvicorn knows of. In the
    end it has the time to take what TLS still holds.
    """
    times = {"ssl_handshake_timeout": within_s, "ssl_shutdown_timeout": READ_WITHIN_S}

    def connection(**options: Any) -> SSLProtocol:
        inner = http(**options)
        return SSLProtocol(inner.loop, inner, tls.context, None, True, **times)

    return connection
