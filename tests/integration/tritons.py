"""Several tritonservers, and an engine on them that is asked as the data plane asks."""

import asyncio
import struct
from collections.abc import Callable, Coroutine
from typing import Any

import grpc

from adapter.core.metrics import Metrics
from adapter.core.types import InferRequest, Parameter, Tensor
from adapter.settings import Settings
from adapter.standalone.certificates import Certificates
from adapter.standalone.network import LOOPBACK
from adapter.triton.client import TritonEngine
from tests.integration.services import Service, Stage
from tests.models.generate import write_count_model, write_running_sum_model

SLOW = 1_000_000_000
"""A value from here on takes a second."""
FATAL = -1
"""The model's process dies of it."""


class Tritons:
    """Tritons with the models `count` and `running-sum`; the last one has `rare` too.

    One for each of `hosts`; with a `port` all are on it.
    """

    def __init__(
        self,
        stage: Stage,
        hosts: tuple[str, ...] = (LOOPBACK, LOOPBACK),
        port: int = 0,
        tls: Certificates | None = None,
    ) -> None:
        self.servers: list[Service] = []
        self._logs = [stage.folder / f"{n}.txt" for n in range(len(hosts))]
        for n, host in enumerate(hosts):
            models = stage.folder / f"models-{n}"
            write_count_model(models / "count", self._logs[n])
            write_running_sum_model(models / "running-sum")
            if n == len(hosts) - 1:
                write_count_model(models / "rare", stage.folder / "rare.txt")
            self.servers.append(stage.triton(f"triton-{n}", models, host, port, tls))
        self.addresses = [server.address for server in self.servers]
        self.values = iter(range(1, SLOW))

    def executed(self) -> list[list[int]]:
        """The values that each was asked for."""
        return [[int(line) for line in log.read_text().split()] for log in self._logs]

    async def shares(self, asking: Coroutine[Any, Any, None]) -> list[int]:
        """How much of it each was asked for."""
        before = [len(values) for values in self.executed()]
        await asking
        return [len(values) - old for values, old in zip(self.executed(), before, strict=True)]


class Asker:
    """An engine, at first on all of them."""

    def __init__(
        self, tritons: Tritons, urls: str = "", credentials: grpc.ChannelCredentials | None = None
    ) -> None:
        urls = urls or ",".join(tritons.addresses)
        self.tritons = tritons
        self.engine = TritonEngine(Settings(triton_grpc_url=urls, metadata_ttl_s=0.2), Metrics(), credentials)

    async def ask(
        self, value: int | None = None, model: str = "count", timeout_s: float = 20, **parameters: Parameter
    ) -> int:
        """One request with that value, or one that nobody had; returns what came back."""
        value = next(self.tritons.values) if value is None else value
        name, datatype = ("INPUT0", "INT32") if model == "running-sum" else ("value", "INT64")
        shape, form = ((1,), "<i") if model == "running-sum" else ((1, 1), "<q")
        tensor = Tensor(name, datatype, shape, struct.pack(form, value))
        await self.engine.metadata(model)
        answer = await self.engine.infer(InferRequest(model, "", (tensor,), parameters=parameters), timeout_s)
        echoed: int = struct.unpack(form, answer.outputs[0].data)[0]
        return echoed

    async def ask_often(self, count: int) -> None:
        """So many requests, one after the other."""
        for _ in range(count):
            await self.ask()

    async def until(self, *states: str) -> None:
        """Return when the servers are in these states: the beginnings of what is told of them."""

        def there() -> bool:
            told = self.engine.servers().values()
            return len(told) == len(states) and all(map(str.startswith, told, states))

        async with asyncio.timeout(30):
            while not there():  # noqa: ASYNC110 - counts what other tasks do
                await asyncio.sleep(0.02)


def run(
    tritons: Tritons,
    scenario: Callable[[Asker], Coroutine[Any, Any, None]],
    urls: str = "",
    credentials: grpc.ChannelCredentials | None = None,
) -> None:
    """Run a scenario on a new engine."""

    async def main() -> None:
        asker = Asker(tritons, urls, credentials)
        try:
            await scenario(asker)
        finally:
            await asker.engine.close()

    asyncio.run(main())
