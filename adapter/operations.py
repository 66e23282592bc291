"""What every process has beside its work: an operations listener, a monitor, metrics that it shares."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from adapter.core.metrics import Metrics
from adapter.core.ports import Engine, JobQueue
from adapter.listener import QuietServer, config
from adapter.monitor import Monitor, checks
from adapter.ops import create_ops_app
from adapter.processes import Processes
from adapter.security.tls import ServerTls, expiry, is_loopback, server_tls
from adapter.settings import Settings

_LAST_ANSWERS_S = 1.0
"""For scrapes and probes that are still being answered when all else has ended, within its own time."""


class Watched(Protocol):
    """What is watched of a process."""

    @property
    def metrics(self) -> Metrics:
        """Its metrics."""

    @property
    def engine(self) -> Engine:
        """Its Triton."""

    @property
    def queue(self) -> JobQueue:
        """Its queue."""


@asynccontextmanager
async def operations(
    settings: Settings,
    role: str,
    watched: Watched,
    listening: socket.socket,
    stopping: Callable[[], bool],
    tls: ServerTls | None = None,
) -> AsyncIterator[None]:
    """While inside, the process can be watched; `tls` is its API's. Raises TlsError.

    The listener is the last to go: as long as the process is `stopping` it says so.
    """
    metrics, engine, queue = watched.metrics, watched.engine, watched.queue
    # Probes on this machine need no TLS; a listener that others reach does. They show no certificate.
    ops_tls = None if is_loopback(listening.getsockname()[0]) else server_tls(settings, clients=False)
    processes = Processes(metrics, role, settings.metrics_dir)
    certificates = _certificates(settings, tls or ops_tls)
    monitor = Monitor(metrics, role, engine, queue, processes.leads, certificates, stopping)
    app = create_ops_app(checks(engine, queue), engine.servers, stopping, processes.total)
    server = QuietServer(config(app, settings, ops_tls, lambda _: None, _LAST_ANSWERS_S))
    processes.open()
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    background = [asyncio.create_task(monitor.run())]
    background += [asyncio.create_task(each.watch()) for each in (tls, ops_tls) if each]
    try:
        yield
    finally:
        server.should_exit = True
        await serving
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await processes.close()


def _certificates(settings: Settings, tls: ServerTls | None) -> dict[str, Callable[[], float | None]]:
    """When those in use end. Towards Triton and NATS they are the ones that were there at the start."""
    triton, nats = expiry(settings.triton_cert_file), expiry(settings.nats_cert_file)
    return {"server": lambda: tls.expires if tls else None, "triton": lambda: triton, "nats": lambda: nats}
