"""`serve`: the API and its operations listener in one process."""

import asyncio
import gc
import math
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
import uvicorn
import uvloop
from starlette.types import ASGIApp

from adapter.app import Services, create_app
from adapter.logs import configure_logs
from adapter.ops import create_ops_app
from adapter.protocol import limits
from adapter.security.browser import ALWAYS, OVER_TLS
from adapter.security.tls import ServerTls, is_loopback, refuse_plain_text, server_tls
from adapter.settings import Settings
from adapter.sockets import BACKLOG, listen

_GC_THRESHOLDS = (20_000, 20, 20)
"""A request makes many objects and leaves no cycles: the collector's defaults find nothing, often."""


class _Quiet(uvicorn.Server):
    """A server that leaves the process's signals to the main one."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(settings: Settings, fd: int | None = None, ops_fd: int | None = None) -> None:
    """Run until SIGTERM or SIGINT; `fd` and `ops_fd` are listening sockets of the parent process.

    Raises ListenError when an address is in use, TlsError for certificates that cannot be used and for plain
    text where it is refused.
    """
    configure_logs(settings)
    _allow_many_files()
    tls = server_tls(settings)
    with (
        _open(settings.host, settings.port, "--port", fd) as api,
        _open(settings.ops_host, settings.ops_port, "--ops-port", ops_fd) as ops,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        for listening in (api, ops):
            refuse_plain_text(listening.getsockname()[0], tls is not None, settings)
        runner.run(_serve(settings, api, ops, tls))


def _open(host: str, port: int, option: str, fd: int | None) -> socket.socket:
    return listen(host, port, option) if fd is None else socket.socket(fileno=fd)


async def _serve(settings: Settings, api: socket.socket, ops: socket.socket, tls: ServerTls | None) -> None:
    services = Services(settings)
    main = uvicorn.Server(_config(create_app(settings, services), settings, tls))
    ops_app = create_ops_app(services.engine, services.queue, services.metrics)
    # Probes on this machine need no TLS; a listener that others reach does. They show no certificate.
    ops_tls = None if is_loopback(ops.getsockname()[0]) else server_tls(settings, clients=False)
    side = _Quiet(_config(ops_app, settings, ops_tls))
    background = [asyncio.create_task(side.serve(sockets=[ops]))]
    background += [asyncio.create_task(each.watch()) for each in (tls, ops_tls) if each]
    # What lives as long as the process need not be looked through again and again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    structlog.get_logger().info("serving", api=_address(api), ops=_address(ops), tls=tls is not None)
    try:
        await main.serve(sockets=[api])
    finally:
        side.should_exit = True
        await background[0]
        for task in background[1:]:
            task.cancel()


def _config(app: ASGIApp, settings: Settings, tls: ServerTls | None) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=limits(settings.header_timeout_s, settings.max_connections),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        headers=[*ALWAYS, *(OVER_TLS if tls else [])],
        # `Forwarded` knows which proxies to believe; uvicorn believes all on this machine.
        proxy_headers=False,
        ssl_context_factory=(lambda *_: tls.context) if tls else None,
        backlog=BACKLOG,
        timeout_graceful_shutdown=math.ceil(settings.shutdown_timeout_s),
    )


def _allow_many_files() -> None:
    """Every connection is an open file, and many systems allow 1024 at first."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"{host}:{port}"
