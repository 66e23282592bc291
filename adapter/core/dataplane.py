"""What every contract calls: find a model, run it. Knows neither HTTP nor gRPC nor NATS."""

import asyncio
import re
import time
from collections.abc import Awaitable, Coroutine, Iterator, Mapping, Sequence
from typing import Any

from adapter.core.errors import (
    DeadlineExceeded,
    EngineUnavailable,
    InvalidInput,
    ModelGone,
    ModelNotFound,
)
from adapter.core.ports import Engine
from adapter.core.rows import join_answers, split
from adapter.core.types import InferRequest, InferResponse, ModelMetadata, ModelVersion, RegionKind
from adapter.core.work import Stage

MODEL_NAME = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,128}\Z")
_VERSION = re.compile(r"[0-9]{1,18}\Z")
_PARTS_AT_ONCE = 16
"""Parts of one request in the engine at a time: they keep it busy, and leave it open for others."""


class DataPlane:
    """One engine, seen as models that can be described and run."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def models(self) -> Sequence[ModelVersion]:
        """Every version that is loaded, is loading, or could not be loaded. Raises EngineUnavailable."""
        return await self._engine.models()

    async def config(self, name: str, version: str = "") -> Mapping[str, Any]:
        """The engine's own configuration of a version. Raises as `metadata` does."""
        metadata = await self.metadata(name, version)
        return await self._engine.config(metadata.name, metadata.version)

    async def statistics(self, name: str = "", version: str = "") -> Sequence[Mapping[str, Any]]:
        """What a version, all of a model's versions, or all models have done. Raises as `metadata` does."""
        if name:
            await self.metadata(name, version)
        return await self._engine.statistics(name, version)

    async def repository_index(self) -> Sequence[Mapping[str, str]]:
        """Every model of the repository, loaded or not. Raises EngineUnavailable."""
        return await self._engine.repository_index()

    def memory(self, size: int) -> memoryview:
        """See `Engine.memory`."""
        return self._engine.memory(size)

    async def load(self, name: str) -> None:
        """Load a model of the repository. Raises ModelNotFound, InvalidInput, Unavailable."""
        _check_name(name)
        if not any(line["name"] == name for line in await self._engine.repository_index()):
            raise ModelNotFound(f"Model not found: {name}")
        await self._engine.load(name)

    async def unload(self, name: str, *, dependents: bool) -> None:
        """Unload a model. Raises ModelNotFound, Unavailable."""
        _check_name(name)
        await self._engine.unload(name, dependents=dependents)

    async def regions(self, kind: RegionKind, name: str = "") -> Sequence[Mapping[str, Any]]:
        """See `Engine.regions`."""
        return await self._engine.regions(kind, name)

    async def register_system_region(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """See `Engine.register_system_region`."""
        await self._engine.register_system_region(name, key, offset, byte_size)

    async def register_cuda_region(self, name: str, handle: bytes, device: int, byte_size: int) -> None:
        """See `Engine.register_cuda_region`."""
        await self._engine.register_cuda_region(name, handle, device, byte_size)

    async def unregister_region(self, kind: RegionKind, name: str = "") -> None:
        """See `Engine.unregister_region`."""
        await self._engine.unregister_region(kind, name)

    async def metadata(self, name: str, version: str = "", label: str = "") -> ModelMetadata:
        """Describe a version, the one that `label` points to, or the latest ready one.

        Raises ModelNotFound, also for names that no model may have: those never reach the engine.
        """
        _check_name(name)
        if version and not _VERSION.match(version):
            raise ModelNotFound(f"Model not found: {name} version {version[:32]}")
        if label:
            labels = (await self._engine.metadata(name)).labels
            if label not in labels:
                raise ModelNotFound(f"Model not found: {name} label {label[:128]}")
            version = labels[label]
        return await self._engine.metadata(name, version)

    def infer(
        self, metadata: ModelMetadata, request: InferRequest, timeout_s: float, *, whole: bool = False
    ) -> Coroutine[Any, Any, InferResponse]:
        """Run one request; more rows than the model's maximum go as several calls, joined again.

        A request that is to stay `whole` is left to the engine, which refuses too many rows. Raises what
        `Engine.infer` raises; if one of several calls fails, the whole request does. Who lets go of the
        request before it awaits the answer does not keep its tensors alive.
        """
        most = 0 if whole else metadata.max_batch_size
        if not most or not request.inputs or request.inputs[0].shape[0] <= most:
            return self._run(metadata, self._engine.infer(request, timeout_s))
        return self._run(metadata, self._infer_parts(split(request, most), most, timeout_s))

    async def _run(self, metadata: ModelMetadata, call: Awaitable[InferResponse]) -> InferResponse:
        with Stage("infer") as span:
            if span.recording:
                span.set({"miaas.model": metadata.name, "miaas.version": metadata.version})
            try:
                return await call
            except ModelNotFound as error:
                # It was there a moment ago. Whether it is gone for good, the next look-up tells.
                self._engine.forget()
                raise ModelGone(f"Model {metadata.name} is not ready: {error.message}") from error
            except EngineUnavailable:
                self._engine.forget()
                raise

    async def _infer_parts(self, parts: Iterator[InferRequest], most: int, timeout_s: float) -> InferResponse:
        """Run the parts, of `most` rows, side by side within `timeout_s`; the first failure ends them all."""
        deadline = time.monotonic() + timeout_s
        waiting = enumerate(parts)
        answers: dict[int, InferResponse] = {}

        async def work() -> None:
            for i, part in waiting:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise DeadlineExceeded("not every part of the batch was done in time")
                try:
                    answers[i] = await self._engine.infer(part, left)
                except InvalidInput as error:
                    if i == 0:
                        raise
                    # The model counts the rows of its part alone.
                    message = f"counted from row {i * most}: {error.message}"
                    raise InvalidInput(message, error.details) from error

        tasks = [asyncio.create_task(work()) for _ in range(_PARTS_AT_ONCE)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        return join_answers([answers[i] for i in range(len(answers))])


def _check_name(name: str) -> None:
    """Raise ModelNotFound for a name that no model may have."""
    if not MODEL_NAME.match(name):
        raise ModelNotFound(f"Model not found: {name[:128]}")
