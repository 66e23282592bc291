"""`serve`: the API and its operations listener in one process."""

import asyncio
import gc
import resource
import signal
import socket

import structlog
import uvloop

from adapter.app import Services, create_app
from adapter.listener import QuietServer, address, config, open_socket
from adapter.logs import configure_logs
from adapter.operations import operations
from adapter.security.tls import ServerTls, refuse_plain_text, server_tls
from adapter.settings import Settings
from adapter.traces import exported_spans

_log = structlog.get_logger()

_GC_THRESHOLDS = (20_000, 20, 20)
"""A request makes many objects and leaves no cycles: the collector's defaults find nothing, often."""


def serve(settings: Settings, fd: int | None = None, ops_fd: int | None = None) -> None:
    """Run until SIGTERM or SIGINT; `fd` and `ops_fd` are listening sockets of the parent process.

    Raises ListenError when an address is in use, TlsError for certificates that cannot be used and for plain
    text where it is refused.
    """
    configure_logs(settings)
    _allow_many_files()
    tls = server_tls(settings)
    with (
        exported_spans("miaas-adapter"),
        open_socket(settings.host, settings.port, "--port", fd) as api,
        open_socket(settings.ops_host, settings.ops_port, "--ops-port", ops_fd) as ops,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        for listening in (api, ops):
            refuse_plain_text(listening.getsockname()[0], tls is not None, settings)
        runner.run(_serve(settings, api, ops, tls))


async def _serve(settings: Settings, api: socket.socket, ops: socket.socket, tls: ServerTls | None) -> None:
    services = Services(settings)
    server = QuietServer(config(create_app(settings, services), settings, tls, services.metrics.refused))
    # uvicorn would raise them again once the API is closed: that kills the process before it has written its
    # last metrics, spans and lines.
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, server.handle_exit, number, None)
    async with operations(settings, "serve", services, ops, lambda: server.should_exit, tls):
        # What lives as long as the process need not be looked through again and again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_GC_THRESHOLDS)
        _log.info("serving", api=address(api), ops=address(ops), tls=tls is not None)
        await server.serve(sockets=[api])


def _allow_many_files() -> None:
    """Every connection is an open file, and many systems allow 1024 at first."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
