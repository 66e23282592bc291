"""What every process has beside its work, on a fake engine and a fake queue."""

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

from adapter.core.metrics import Metrics
from adapter.core.types import ModelVersion
from adapter.operations import operations
from adapter.settings import Settings
from adapter.sockets import listen
from tests.fakes import FakeEngine, FakeQueue


class Silent(FakeEngine):
    """Does not answer; `asked` tells that somebody waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()

    async def models(self) -> Sequence[ModelVersion]:
        self.asked.set()
        await asyncio.Event().wait()
        return ()


@dataclass
class Watched:
    """A process's services."""

    engine: Silent
    queue: FakeQueue = field(default_factory=FakeQueue)
    metrics: Metrics = field(default_factory=Metrics)


def test_a_probe_that_hangs_does_not_hold_up_the_end() -> None:
    """What the process may take to stop is used up before: a minute here."""

    async def scenario(listening: socket.socket) -> None:
        watched = Watched(Silent())
        async with asyncio.timeout(30):
            async with operations(
                Settings(shutdown_timeout_s=60), "serve", watched, listening, lambda: False
            ):
                reader, writer = await asyncio.open_connection(*listening.getsockname())
                await watched.engine.asked.wait()
                watched.engine.asked.clear()
                writer.write(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
                await watched.engine.asked.wait()
            await reader.read()
            writer.close()

    with listen("127.0.0.1", 0, "") as listening:
        asyncio.run(scenario(listening))
