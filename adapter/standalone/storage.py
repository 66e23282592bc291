"""The disk below nats-server: a server that met a full one stores nothing more until it is started anew."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import httpx

from adapter.standalone.network import LOOPBACK

LOOK_EVERY_S = 2.0
ROOM_BYTES = 16 << 20
"""Free space with which it is worth starting anew: two of the largest messages."""


class StorageWatcher:
    """Starts nats-server anew when it cannot write although its disk has room again.

    Its monitoring endpoint, on `monitor_port`, tells of the error; `report` takes what the user is told.
    """

    def __init__(
        self, store: Path, monitor_port: int, restart: Callable[[], None], report: Callable[[str], None]
    ) -> None:
        self._store = store
        self._monitor = f"http://{LOOPBACK}:{monitor_port}"
        self._restart = restart
        self._report = report

    async def run(self) -> None:
        """Look without end."""
        told = False
        async with httpx.AsyncClient(base_url=self._monitor, timeout=5) as client:
            while True:
                await asyncio.sleep(LOOK_EVERY_S)
                error = await _write_error(client)
                if error and not told:
                    self._report(f"nats cannot write, and jobs are refused until there is room: {error}")
                told = bool(error)
                if error and shutil.disk_usage(self._store).free >= ROOM_BYTES:
                    self._restart()


async def _write_error(client: httpx.AsyncClient) -> str:
    """Why a stream cannot be written to, "" when all can, or when nobody answers."""
    try:
        error = str((await client.get("/healthz")).json().get("error", ""))
    except (httpx.HTTPError, ValueError):
        return ""
    return error if "write error" in error else ""
