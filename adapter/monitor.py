"""What is looked at in the background, and never by a scrape: whether Triton and NATS are there, how long the
queue is, until when the certificates are good, what the process costs.
"""

import asyncio
import os
import platform
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import structlog

from adapter import __version__
from adapter.core.errors import AdapterError
from adapter.core.metrics import Metrics
from adapter.core.ports import Engine, JobQueue

_log = structlog.get_logger()

LOOK_EVERY_S = 5.0
LOOK_AGAIN_S = 1.0
"""While something does not answer."""
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_MEMORY = Path("/proc/self/statm")

Check = Callable[[], Awaitable[object]]
"""Returns when what it asks is well, and raises AdapterError when it is not."""


def checks(engine: Engine, queue: JobQueue) -> dict[str, Check]:
    """What the adapter cannot do without, by the names that `adapter_dependency_up` has for it."""
    return {"triton": engine.models, "nats": queue.ping}


async def trouble(check: Check) -> str | None:
    """What is not well, or None."""
    try:
        await check()
    except AdapterError as error:
        return error.message
    return None


class Monitor:
    """Keeps one process's gauges. `leads` tells whether it is the one that asks for the queue's length."""

    def __init__(
        self,
        metrics: Metrics,
        role: str,
        engine: Engine,
        queue: JobQueue,
        leads: Callable[[], bool],
        certificates: Mapping[str, Callable[[], float | None]],
        stopping: Callable[[], bool],
    ) -> None:
        self._metrics = metrics
        self._role = role
        self._checks = checks(engine, queue)
        self._servers = engine.servers
        self._queue = queue
        self._leads = leads
        self._certificates = certificates
        self._stopping = stopping
        self._cpu_s = 0.0
        metrics.processes.labels(role).set(1)
        metrics.build_info.labels(__version__, platform.python_version(), version("tritonclient")).set(1)

    async def run(self) -> None:
        """Look again and again, until the process is stopping or this is cancelled."""
        while not self._stopping():
            well = False
            try:
                self._look_at_process()
                well = all(await asyncio.gather(*map(self._look_at, self._checks)))
                self._look_at_servers()
                await self._look_at_queue()
            except Exception:
                _log.exception("the monitor failed, and goes on")
            await asyncio.sleep(LOOK_EVERY_S if well else LOOK_AGAIN_S)

    async def _look_at(self, dependency: str) -> bool:
        well = await trouble(self._checks[dependency]) is None
        self._metrics.dependency_up.labels(dependency).set(int(well))
        return well

    def _look_at_servers(self) -> None:
        up = self._metrics.triton_server_up
        # Of one that is gone for good nothing is told.
        up.clear()
        for server, state in self._servers().items():
            up.labels(server).set(int(state == "ok"))

    async def _look_at_queue(self) -> None:
        metrics = self._metrics
        try:
            backlog = await self._queue.backlog() if self._leads() else None
        except AdapterError:
            backlog = None
        if backlog is None:
            # What nobody knows is not told; nor is what this one knew while it led.
            metrics.queue_jobs.clear()
            metrics.oldest_job_seconds.clear()
            return
        metrics.queue_jobs.labels("waiting").set(backlog.waiting)
        metrics.queue_jobs.labels("running").set(backlog.running)
        metrics.oldest_job_seconds.labels().set(backlog.oldest_s)

    def _look_at_process(self) -> None:
        metrics = self._metrics
        used = time.process_time()
        metrics.process_cpu_seconds.labels(self._role).inc(used - self._cpu_s)
        self._cpu_s = used
        with suppress(OSError):  # Linux alone has it
            resident = int(_MEMORY.read_text().split()[1])
            metrics.process_memory.labels(self._role).set(resident * _PAGE_BYTES)
        for name, expiry in self._certificates.items():
            if (ends := expiry()) is not None:
                metrics.certificate_expiry.labels(name).set(ends)
