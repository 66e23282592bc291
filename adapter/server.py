"""`serve`: the API and its operations listener in one process."""

import asyncio
import math
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
from adapter.protocol import HttpProtocol
from adapter.settings import Settings
from adapter.sockets import BACKLOG, listen


class _Quiet(uvicorn.Server):
    """A server that leaves the process's signals to the main one."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(settings: Settings, fd: int | None = None, ops_fd: int | None = None) -> None:
    """Run until SIGTERM or SIGINT; `fd` and `ops_fd` are listening sockets of the parent process.

    Raises ListenError when an address is in use.
    """
    configure_logs(settings)
    with (
        _open(settings.host, settings.port, "--port", fd) as api,
        _open(settings.ops_host, settings.ops_port, "--ops-port", ops_fd) as ops,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(_serve(settings, api, ops))


def _open(host: str, port: int, option: str, fd: int | None) -> socket.socket:
    return listen(host, port, option) if fd is None else socket.socket(fileno=fd)


async def _serve(settings: Settings, api: socket.socket, ops: socket.socket) -> None:
    services = Services(settings)
    main = uvicorn.Server(_config(create_app(settings, services), settings))
    ops_app = create_ops_app(services.engine, services.queue, services.metrics.registry)
    side = _Quiet(_config(ops_app, settings))
    serving_ops = asyncio.create_task(side.serve(sockets=[ops]))
    structlog.get_logger().info("serving", api=_address(api), ops=_address(ops))
    try:
        await main.serve(sockets=[api])
    finally:
        side.should_exit = True
        await serving_ops


def _config(app: ASGIApp, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=HttpProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=math.ceil(settings.shutdown_timeout_s),
    )


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"{host}:{port}"
