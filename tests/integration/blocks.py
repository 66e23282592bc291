"""Large tensors to ask for, and what of shared memory they leave where."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as grpc

from adapter.core.metrics import Metrics
from adapter.core.types import InferRequest, Tensor
from adapter.settings import Settings
from adapter.triton.client import TritonEngine
from adapter.triton.segments import place_of
from tests.integration.services import Service
from tests.models.generate import write_block_model

ELEMENTS = 1 << 16
BYTES = 4 * ELEMENTS
REGION = 2 * BYTES
"""For the input and the output."""


def write_models(folder: Path) -> Path:
    write_block_model(folder / "block", ELEMENTS)
    write_block_model(folder / "slow", ELEMENTS)
    for name, elements in (("longer", ELEMENTS), ("repeated", -1)):
        more = f'parameters {{ key: "{name}" value: {{ string_value: "1" }} }}\n'
        write_block_model(folder / name, elements, more)
    return folder


def registered(triton: Service) -> set[str]:
    """The names of the adapter's regions that Triton knows."""
    with grpc.InferenceServerClient(triton.address) as client:
        found: Any = client.get_system_shared_memory_status()
        return {name for name in found.regions if name.startswith("miaas-tensors-")}


def files(pid: int | None = None) -> set[str]:
    """A process's own in /dev/shm, or this one's."""
    return {path.name for path in Path("/dev/shm").glob(f"miaas-tensors-*-{pid or os.getpid()}-*")}


class Asker:
    """An engine that is asked for blocks of equal values."""

    def __init__(self, urls: str, **settings: Any) -> None:
        self.metrics = Metrics()
        options: dict[str, Any] = {"shared_memory_min_bytes": BYTES, **settings}
        self.engine = TritonEngine(Settings(triton_grpc_url=urls, **options), self.metrics)

    async def ask(self, value: float, seconds: float = 0, model: str = "block", timeout_s: float = 20) -> Any:
        """The block that came back, as the engine gives it."""
        block = np.full(ELEMENTS, value, np.float32)
        block[0] = seconds
        return await self.send(block.tobytes(), model, timeout_s)

    async def send(self, data: bytes | memoryview, model: str = "block", timeout_s: float = 20) -> Any:
        """The same for a block's bytes."""
        await self.engine.metadata(model)
        tensor = Tensor("block", "FP32", (ELEMENTS,), data)
        answer = await self.engine.infer(InferRequest(model, "", (tensor,)), timeout_s)
        assert answer.outputs[0].name == "echo"
        return answer.outputs[0].data

    async def echoes(self, value: float, **options: Any) -> None:
        """It comes back as it went."""
        check(await self.ask(value, **options), value)

    async def laid(self, value: float) -> memoryview:
        """A block of equal values in a region, with something before it."""
        await self.engine.metadata("block")
        async with asyncio.timeout(20):
            # Made in the background.
            while place_of(memory := self.engine.memory(BYTES + 100)) is None:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        np.frombuffer(memory[100:], np.float32)[:] = value
        memory[100:104] = bytes(4)
        return memory[100:]

    @property
    def shared(self) -> float:
        """Calls that went through shared memory."""
        return self.metrics.shared_memory_calls.labels().value

    @property
    def held(self) -> float:
        """Bytes of shared memory."""
        return self.metrics.shared_memory_bytes.labels().value

    async def until_shared(self) -> None:
        """Ask until it goes through shared memory."""
        before = self.shared
        async with asyncio.timeout(20):
            while self.shared == before:
                await self.echoes(0.5)


async def until(look: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not look():  # noqa: ASYNC110 - looks at what another process does
            await asyncio.sleep(0.05)


def check(data: Any, value: float) -> None:
    block = np.frombuffer(data, np.float32)
    assert block.shape == (ELEMENTS,)
    assert (block[1:] == np.float32(value)).all()


@asynccontextmanager
async def asking(urls: str, **settings: Any) -> AsyncIterator[Asker]:
    asker = Asker(urls, **settings)
    try:
        yield asker
    finally:
        await asker.engine.close()


def run(urls: str, scenario: Callable[[Asker], Coroutine[Any, Any, None]], **settings: Any) -> None:
    """Run a scenario on a new engine."""

    async def main() -> None:
        async with asking(urls, **settings) as asker:
            await scenario(asker)

    asyncio.run(main())
